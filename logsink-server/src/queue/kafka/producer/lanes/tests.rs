//! What goes where, and when.

use proptest::prelude::*;

use super::*;

/// Number, bytes, key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sized(u32, usize, Option<u8>);

impl Waiting for Sized {
    fn key(&self) -> Option<&[u8]> {
        self.2.as_ref().map(std::slice::from_ref)
    }

    fn bytes(&self) -> usize {
        self.1
    }

    fn is_abandoned(&self) -> bool {
        self.0 == GONE
    }
}

const GONE: u32 = u32::MAX;

/// Lanes, and the time.
struct Story {
    lanes: Lanes<Sized>,
    now: Instant,
}

const LINGER: Duration = Duration::from_millis(5);

impl Story {
    fn new(partitions: usize) -> Self {
        let mut lanes = Lanes::new(LINGER, 100);
        lanes.resize(partitions);
        Self { lanes, now: Instant::now() }
    }

    fn put(&mut self, number: u32, bytes: usize) {
        self.lanes.put(Sized(number, bytes, None));
    }

    fn put_keyed(&mut self, number: u32, key: u8) {
        self.lanes.put(Sized(number, 1, Some(key)));
    }

    /// What goes now, by its numbers.
    fn next(&mut self) -> Option<(usize, Vec<u32>)> {
        numbers(self.lanes.next(self.now))
    }

    /// What goes when so many messages of a lane were answered.
    fn answer(&mut self, lane: usize, messages: usize, is_well: bool) -> Option<(usize, Vec<u32>)> {
        (0..messages).for_each(|_| self.lanes.answered(lane, is_well, self.now));
        self.next()
    }
}

fn numbers(next: Option<(usize, Vec<Sized>)>) -> Option<(usize, Vec<u32>)> {
    let (lane, messages) = next?;
    Some((lane, messages.into_iter().map(|message| message.0).collect()))
}

#[test]
fn a_batch_is_open_for_a_while_and_then_closed_until_it_is_answered() {
    let mut story = Story::new(2);
    for number in 0..3 {
        story.put(number, 20);
        assert_eq!(story.next(), Some((0, vec![number])), "into the batch that is open");
    }
    story.put(3, 50);
    assert_eq!(story.next(), Some((1, vec![3])), "it does not fit any more");
    story.now += LINGER;
    for number in 4..9 {
        story.put(number, 30);
    }
    assert_eq!(story.next(), None, "both are closed");
    assert_eq!(story.answer(0, 2, true), None, "one of its three is not answered");
    assert_eq!(story.answer(0, 1, true), Some((0, vec![4, 5, 6])), "what has waited, up to the bound");
    story.put(9, 1000);
    assert_eq!(story.answer(1, 1, true), Some((1, vec![7, 8])));
    assert_eq!(story.answer(0, 3, true), Some((0, vec![9])), "whatever its size, one goes");
}

#[test]
fn a_key_has_its_partition_and_its_order() {
    let mut story = Story::new(3);
    let lane = partition_of(b"a", 3);
    story.put_keyed(0, b'a');
    assert_eq!(story.next(), Some((lane, vec![0])));
    story.now += LINGER;
    for number in 1..9 {
        story.put_keyed(number, b'a');
    }
    assert_eq!(story.next(), None, "though two lanes are free");
    assert_eq!(story.answer(lane, 1, true), Some((lane, (1..9).collect())));
}

#[test]
fn nobody_is_served_before_who_came_earlier() {
    let mut story = Story::new(1);
    story.put(0, 1);
    assert_eq!(story.next(), Some((0, vec![0])));
    story.now += LINGER;
    for number in [1, 3, 5] {
        story.put(number, 1);
        story.put_keyed(number + 1, b'a');
    }
    assert_eq!(story.answer(0, 1, true), Some((0, (1..7).collect())));
}

#[test]
fn the_partition_of_a_key_is_librdkafkas() {
    // `rd_kafka_msg_partitioner_consistent`: the CRC-32 of zlib.
    assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
    assert_eq!(partition_of(b"123456789", 7), 0xCBF4_3926 % 7);
}

#[test]
fn a_partition_that_fails_is_passed_over_while_another_works() {
    let mut story = Story::new(2);
    story.put(0, 1);
    assert_eq!(story.next(), Some((0, vec![0])));
    assert_eq!(story.answer(0, 1, false), None);
    story.put(1, 1);
    assert_eq!(story.next(), Some((1, vec![1])));
    story.now += LINGER;
    story.put(2, 1);
    assert_eq!(story.next(), None, "the other one will take it");
    story.now += PAUSE;
    assert_eq!(story.next(), Some((0, vec![2])), "or this one, in time");
    story.answer(0, 1, false);
    story.put(3, 1);
    assert_eq!(
        story.answer(1, 1, false).map(|(_, numbers)| numbers),
        Some(vec![3]),
        "none works: any may be the first"
    );
}

#[test]
fn what_is_abandoned_or_closed_goes_nowhere() {
    let mut story = Story::new(1);
    story.put(0, 60);
    assert_eq!(story.next(), Some((0, vec![0])));
    for number in [GONE, 1, GONE, 2] {
        story.put(number, 60);
    }
    assert_eq!(story.answer(0, 1, true), Some((0, vec![1])));
    story.lanes.close();
    story.put(3, 60);
    assert_eq!(story.answer(0, 1, true), None);
}

#[test]
fn what_is_abandoned_takes_no_room() {
    let mut story = Story::new(1);
    story.put(0, 60);
    assert_eq!(story.next(), Some((0, vec![0])));
    for number in [GONE, 1, GONE] {
        story.put(number, 60);
        story.put_keyed(GONE, b'a');
    }
    story.lanes.sweep();
    assert_eq!((story.lanes.any.len(), story.lanes.lanes[0].own.len()), (1, 0));
    assert_eq!(story.answer(0, 1, true), Some((0, vec![1])));
}

#[derive(Debug, Clone)]
enum Step {
    Put(Option<u8>, usize),
    Answer(usize, bool),
    Resize(usize),
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (proptest::option::of(0..4u8), 0..150usize).prop_map(|(key, bytes)| Step::Put(key, bytes)),
        4 => (0..6usize, any::<bool>()).prop_map(|(lane, is_well)| Step::Answer(lane, is_well)),
        1 => (1..6usize).prop_map(Step::Resize),
        1 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 0..200)
}

/// What the lanes were given, and what went.
struct Run {
    story: Story,
    under_way: Vec<usize>,
    bytes: Vec<usize>,
    gone: Vec<Sized>,
}

impl Run {
    fn go_on(&mut self) -> Result<(), TestCaseError> {
        while let Some((lane, messages)) = self.story.lanes.next(self.story.now) {
            self.bytes[lane] *= usize::from(self.under_way[lane] > 0);
            self.under_way[lane] += messages.len();
            self.bytes[lane] += messages.iter().map(|message| message.1).sum::<usize>();
            prop_assert!(self.under_way[lane] == 1 || self.bytes[lane] <= 100);
            self.gone.extend(messages);
        }
        Ok(())
    }

    fn answer(&mut self, lane: usize, is_well: bool) -> Result<(), TestCaseError> {
        self.under_way[lane] -= 1;
        self.story.lanes.answered(lane, is_well, self.story.now);
        self.go_on()
    }
}

proptest! {
    /// Everything that was put goes once, in the end; a key's messages in order while the partitions stay.
    #[test]
    fn nothing_is_left_and_nothing_goes_twice(partitions in 1..6usize, steps in steps()) {
        let mut run = Run { story: Story::new(partitions), under_way: vec![0; 8], bytes: vec![0; 8], gone: Vec::new() };
        let mut put = 0;
        let is_stable = !steps.iter().any(|step| matches!(step, Step::Resize(_)));
        for step in steps {
            match step {
                Step::Put(key, bytes) => {
                    run.story.lanes.put(Sized(put, bytes, key));
                    put += 1;
                    run.go_on()?;
                }
                Step::Answer(lane, is_well) if run.under_way[lane] > 0 => run.answer(lane, is_well)?,
                Step::Answer(..) => {}
                Step::Resize(partitions) => {
                    run.story.lanes.resize(partitions);
                    run.under_way[partitions..].fill(0);
                    run.go_on()?;
                }
                Step::Wait => {
                    run.story.now += LINGER;
                    run.go_on()?;
                }
            }
        }
        while let Some(lane) = run.under_way.iter().position(|&count| count > 0) {
            run.answer(lane, true)?;
        }
        for key in (0..4).map(Some).filter(|_| is_stable) {
            let of_key: Vec<_> = run.gone.iter().filter(|message| message.2 == key).map(|message| message.0).collect();
            prop_assert!(of_key.is_sorted());
        }
        let mut numbers: Vec<_> = run.gone.iter().map(|message| message.0).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..put).collect::<Vec<_>>());
    }
}
