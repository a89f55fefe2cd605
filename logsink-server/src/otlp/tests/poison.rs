//! What is made to hurt a reader: refused or handled, within bounds, and never a panic.

use super::*;

/// A length-delimited field of any length.
fn long_field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut field);
    field.extend_from_slice(content);
    field
}

fn request_of(records: &[Vec<u8>]) -> Vec<u8> {
    let records: Vec<u8> = records.iter().flat_map(|record| long_field(2, record)).collect();
    long_field(1, &long_field(2, &records))
}

/// What every reader says of it: it is refused by all of them, or by none.
fn read(payload: &[u8]) -> Result<u32, WireFault> {
    let mut shown = 0;
    let scanned = scan_lists(payload, Some(&mut Vocabulary::default()), &mut |record, attributes, _, _| {
        shown += 1;
        let _ = (record.body.text(), attributes.len());
    });
    let all = for_each_record(payload, &mut |record| _ = record.body.text());
    assert_eq!(scanned, all);
    assert_eq!(check(payload, &Limits::UNLIMITED).map(|summary| summary.records), all);
    // Without a check before it, a walk may fail or show less, and does no worse.
    let _ = walk(payload, &mut |record| _ = (record.body.text(), record.attributes().iter().count()));
    if let Ok(records) = scanned {
        assert_eq!(records, shown);
    }
    scanned.map_err(|error| error.fault)
}

#[test]
fn nesting_without_end_is_refused_where_the_limit_is() {
    for depth in [1_000, 100_000] {
        for in_map in [false, true] {
            let mut value = vec![0x18, 1];
            // From the inside out would copy it as often as it is deep: the lengths are what the outer levels need.
            if depth > 1_000 {
                // Each level claims all that is left: 16 MB of list in list.
                value = (0..depth).rev().flat_map(|_| [0x2a, 0xff, 0xff, 0x03, 0x0a, 0xfb, 0xff, 0x03]).collect();
            } else {
                for _ in 0..depth {
                    let inner = if in_map { long_field(2, &value) } else { value };
                    value = long_field(if in_map { 6 } else { 5 }, &long_field(1, &inner));
                }
            }
            let attribute = [long_field(1, b"k"), long_field(2, &value)].concat();
            for record in [long_field(5, &value), long_field(6, &attribute)] {
                let fault = read(&request_of(&[record])).unwrap_err();
                assert!(matches!(fault, WireFault::TooDeep | WireFault::Truncated), "{fault:?}");
                assert!(depth > 1_000 || fault == WireFault::TooDeep);
            }
        }
    }
}

#[test]
fn ten_thousand_attributes_are_read_where_no_limit_forbids() {
    let attribute = |n: u32| long_field(6, &[long_field(1, format!("k{n}").as_bytes()), field(2, &[0x18, 1])].concat());
    let record: Vec<u8> = (0..10_000).flat_map(attribute).collect();
    let payload = request_of(&[record]);
    assert_eq!(read(&payload), Ok(1));
    let vocabulary = &mut Vocabulary::default();
    let scanned =
        scan_lists(&payload, Some(vocabulary), &mut |_, attributes, _, _| assert_eq!(attributes.len(), 10_000));
    scanned.unwrap();
    let refused = fault(&payload);
    assert_eq!(refused, WireFault::OverLimit { what: "attributes", max: Limits::default().attributes_max });
    // The same number within one value.
    let list: Vec<u8> = (0..10_000).flat_map(|_| field(1, &[0x10, 1])).collect();
    let payload = request_of(&[long_field(5, &long_field(5, &list))]);
    assert_eq!((read(&payload), fault(&payload)), (Ok(1), refused));
}

#[test]
fn every_part_of_a_message_is_refused_or_has_fewer_records() {
    let attribute = [field(1, b"key"), field(2, &field(1, b"value"))].concat();
    let record = [vec![0x09, 1, 2, 3, 4, 5, 6, 7, 8], field(5, &field(1, b"hello")), field(6, &attribute)].concat();
    let whole = request_of(&[record.clone(), record]);
    assert_eq!(read(&whole), Ok(2));
    assert_eq!(read(&[]), Ok(0));
    for end in 1..whole.len() {
        let fault = read(&whole[..end]).unwrap_err();
        assert_eq!(fault, WireFault::Truncated, "{end}");
    }
    for start in 1..whole.len() {
        assert!(read(&whole[start..]).is_err_and(|_| true) || read(&whole[start..]).is_ok_and(|records| records < 2));
    }
}

#[test]
fn a_message_without_records_is_one() {
    for payload in [vec![], field(1, &[]), field(1, &field(2, &[])), field(1, &field(1, &[])), vec![0x78, 1]] {
        assert_eq!(read(&payload), Ok(0), "{payload:?}");
        assert_eq!(check(&payload, &Limits::default()), Ok(Summary { records: 0, service: "" }));
    }
    // An empty record is a record.
    assert_eq!(read(&in_record(&[])), Ok(1));
}

#[test]
fn lengths_beyond_the_end_of_memory_are_refused() {
    for length in [u64::from(u32::MAX), u64::MAX, u64::MAX - 9, 1 << 63] {
        let mut payload = vec![0x0a];
        prost::encoding::encode_varint(length, &mut payload);
        payload.extend_from_slice(&[0x12, 0]);
        assert_eq!(read(&payload), Err(WireFault::Truncated));
    }
}
