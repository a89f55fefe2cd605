//! A search over one snapshot of the store: which blocks, which pages, which rows; then the hits of the page.
//!
//! Blocks are taken from the newest on. Once there are enough hits, a block that ends before the oldest of them is not
//! opened. Within a block, pages that may match are read newest first, few and then more, and only the columns that the
//! expression looks at; the columns of a hit are read for the hits of the answer alone.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    ops::Range,
    panic,
    sync::Arc,
};

use logsink::filter::expr::Expr;

use super::{
    block::{Block, BlockError, Opened},
    columns,
    key::Key,
    open::Message,
    probe::{self, Probe},
    row::{self, Rows},
    side,
};
use crate::{
    index::IndexError,
    query::{Hit, LIMIT_MAX, Page, Query},
};

/// Pages read at a time, at most: enough to make the cost of a read small, few enough to stop early.
const STEP_PAGES_MAX: usize = 16;
/// Searches under way at a time, those that nobody waits for any more included: each takes a thread and may read all blocks.
pub(super) const CONCURRENT_MAX: usize = 8;
/// Warnings in one answer: a person needs a few names to begin with, and a disk that died has thousands.
const WARNINGS_MAX: usize = 10;

/// What a search sees of the store: the same events from its start to its end.
pub(super) struct Snapshot {
    /// Messages that are in no published block.
    pub(super) open: Vec<Arc<Message>>,
    /// Published blocks, in any order.
    pub(super) blocks: Vec<Arc<Block>>,
}

/// What the search found out about a block besides hits.
#[derive(Debug)]
pub(super) enum Notice {
    /// Its side file was made again.
    SideRebuilt,
    /// It is damaged; searches go on without it.
    Damaged(Arc<Block>, String),
}

/// Finds the page of hits.
pub(super) fn search(snapshot: Snapshot, query: &Query, notice: &mut dyn FnMut(Notice)) -> Result<Page, IndexError> {
    let limit = query.limit.min(LIMIT_MAX);
    let before = query.cursor.as_deref().map(Key::from_cursor).transpose()?;
    if limit == 0 {
        return Ok(Page::default());
    }
    // One more than wanted tells whether there is a next page.
    let mut found = Found { limit: limit + 1, best: Vec::new(), from_ns: query.from_ns, to_ns: query.to_ns, before };

    let mut open = snapshot.open;
    open.sort_unstable_by_key(|message| Reverse(message.time_max_ns));
    for message in &open {
        if found.wants(message.time_min_ns, message.time_max_ns) {
            scan_message(message, &query.expr, &mut found);
        }
    }
    let plan = Plan::of(&query.expr);
    let mut blocks = snapshot.blocks;
    blocks.sort_unstable_by_key(|block| Reverse(block.entry.time_max_ns));
    let mut left_out = Vec::new();
    for block in blocks {
        let entry = &block.entry;
        if !found.wants(entry.time_min_ns, entry.time_max_ns) || !plan.probe.block(entry) {
            continue;
        }
        let scanned = match block.damage() {
            Some(_) => Scanned::LeftOut,
            None => guarded(&block, notice, |notice| scan_block(&block, &plan, &mut found, notice))?,
        };
        if scanned == Scanned::LeftOut {
            left_out.push(block);
        }
    }
    fetch(found.into_best(), limit, left_out, notice)
}

/// At most [`WARNINGS_MAX`], the last of which says how many more there are.
pub(super) fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    if warnings.len() > WARNINGS_MAX {
        let more = warnings.split_off(WARNINGS_MAX - 1).len();
        warnings.push(format!("and {more} more"));
    }
    warnings
}

/// What an expression needs of a block.
struct Plan<'a> {
    expr: &'a Expr,
    probe: Probe,
    /// Names of the columns that the matcher and the order need.
    columns: Vec<String>,
}

impl<'a> Plan<'a> {
    fn of(expr: &'a Expr) -> Self {
        let mut columns = [columns::TIME, columns::LOG_OFFSET, columns::LOG_INDEX].map(str::to_owned).to_vec();
        probe::columns(expr, &mut columns);
        Self { expr, probe: Probe::of(expr), columns }
    }
}

/// Where a hit lies.
#[derive(Clone)]
enum Place {
    Open(Arc<Message>),
    Block(Arc<Block>, usize),
}

/// The newest matches so far.
struct Found {
    limit: usize,
    /// Newest first once it is trimmed; at most twice the limit.
    best: Vec<(Key, Place)>,
    from_ns: i64,
    to_ns: i64,
    before: Option<Key>,
}

impl Found {
    /// The key that a match must be above to be of use.
    fn floor(&mut self) -> Option<Key> {
        self.trim();
        (self.best.len() == self.limit).then(|| self.best[self.limit - 1].0)
    }

    /// Whether a match between these times can be of use.
    fn wants(&mut self, min_ns: i64, max_ns: i64) -> bool {
        let end = self.before.is_none_or(|before| min_ns <= before.time_ns);
        min_ns < self.to_ns && max_ns >= self.from_ns && end && self.floor().is_none_or(|floor| max_ns >= floor.time_ns)
    }

    /// Whether the event is in the search's range and below its cursor.
    fn in_range(&self, key: Key) -> bool {
        (self.from_ns..self.to_ns).contains(&key.time_ns) && self.before.is_none_or(|before| key < before)
    }

    fn push(&mut self, key: Key, place: Place) {
        self.best.push((key, place));
        if self.best.len() >= 2 * self.limit {
            self.trim();
        }
    }

    fn trim(&mut self) {
        self.best.sort_unstable_by_key(|(key, _)| Reverse(*key));
        self.best.truncate(self.limit);
    }

    fn into_best(mut self) -> Vec<(Key, Place)> {
        self.trim();
        self.best
    }
}

fn scan_message(message: &Arc<Message>, expr: &Expr, found: &mut Found) {
    let floor = found.floor();
    let scanned = message.for_each_row(&mut |key, record| {
        if found.in_range(key) && floor.is_none_or(|floor| key > floor) && expr.matches(&record) {
            found.push(key, Place::Open(message.clone()));
        }
    });
    // It was read whole when it was taken over, and its bytes do not change.
    debug_assert!(scanned.is_ok());
}

fn scan_block(
    block: &Arc<Block>,
    plan: &Plan<'_>,
    found: &mut Found,
    notice: &mut dyn FnMut(Notice),
) -> Result<(), BlockError> {
    let opened = block.open()?;
    let (side, rebuilt) = block.side(&opened)?;
    if rebuilt {
        notice(Notice::SideRebuilt);
    }
    let columns = opened.columns(plan.columns.iter().map(String::as_str));
    let mut pages = side.pages().rev().filter(|(_, page)| plan.probe.page(*page)).peekable();
    let mut step = 1;
    while pages.peek().is_some() {
        // Newest first; read ascending.
        let mut wanted: Vec<usize> = Vec::with_capacity(step);
        while wanted.len() < step
            && let Some((number, page)) = pages.next()
        {
            if found.wants(page.summary.time_min_ns, page.summary.time_max_ns) {
                wanted.push(number);
            }
        }
        step = (step * 2).min(STEP_PAGES_MAX);
        wanted.reverse();
        if !wanted.is_empty() {
            scan_pages(block, &opened, &columns, plan.expr, &wanted, found)?;
        }
    }
    Ok(())
}

fn scan_pages(
    block: &Arc<Block>,
    opened: &Opened,
    columns: &[usize],
    expr: &Expr,
    pages: &[usize],
    found: &mut Found,
) -> Result<(), BlockError> {
    let end = block.entry.rows as usize;
    let ranges: Vec<Range<usize>> =
        pages.iter().map(|page| page * side::PAGE_ROWS..((page + 1) * side::PAGE_ROWS).min(end)).collect();
    let batch = block.read(opened, columns.to_vec(), &ranges)?;
    let rows = Rows::of(&batch).map_err(|error| block.damaged(error))?;
    let numbers: Vec<usize> = ranges.into_iter().flatten().collect();
    let mut enough = 0;
    let floor = found.floor();
    for row in (0..rows.len).rev() {
        let key = rows.key(row);
        if !found.in_range(key) {
            continue;
        }
        // Rows are sorted: what comes after this many matches is older than all of them.
        if enough == found.limit || floor.is_some_and(|floor| key <= floor) {
            break;
        }
        if expr.matches(&rows.view(row)) {
            enough += 1;
            found.push(key, Place::Block(block.clone(), numbers[row]));
        }
    }
    Ok(())
}

/// What is to be read from a block: rows, and where in the page each belongs.
struct Wanted {
    block: Arc<Block>,
    rows: Vec<(usize, usize)>,
}

/// Reads the hits of the page.
fn fetch(
    mut best: Vec<(Key, Place)>,
    limit: usize,
    mut left_out: Vec<Arc<Block>>,
    notice: &mut dyn FnMut(Notice),
) -> Result<Page, IndexError> {
    let more = best.len() > limit;
    best.truncate(limit);
    let cursor = best.last().filter(|_| more).map(|(key, _)| key.cursor());
    let mut hits: Vec<Option<Hit>> = vec![None; best.len()];
    let mut of_messages: BTreeMap<i64, (Arc<Message>, HashMap<u32, usize>)> = BTreeMap::new();
    let mut of_blocks: BTreeMap<u64, Wanted> = BTreeMap::new();
    for (at, (key, place)) in best.iter().enumerate() {
        match place {
            Place::Open(message) => {
                let (_, records) = of_messages.entry(key.offset).or_insert_with(|| (message.clone(), HashMap::new()));
                records.insert(key.index, at);
            }
            Place::Block(block, row) => {
                of_blocks
                    .entry(block.entry.id)
                    .or_insert_with(|| Wanted { block: block.clone(), rows: Vec::new() })
                    .rows
                    .push((*row, at));
            }
        }
    }
    // A record is found by walking its message: once for all of a message's hits, which may be thousands.
    for (message, records) in of_messages.into_values() {
        message
            .for_each_row(&mut |key, record| {
                if let Some(at) = records.get(&key.index) {
                    hits[*at] = Some(row::hit_of_record(key, &record));
                }
            })
            .map_err(|error| IndexError::Failed(format!("a message that was read before: {error}")))?;
    }
    for Wanted { block, mut rows } in of_blocks.into_values() {
        rows.sort_unstable();
        let read = guarded(&block, notice, |_| {
            let opened = block.open()?;
            let ranges: Vec<Range<usize>> = rows.iter().map(|&(row, _)| row..row + 1).collect();
            let all = (0..opened.schema().fields().len()).collect();
            let batch = block.read(&opened, all, &ranges)?;
            let read = Rows::of(&batch).map_err(|error| block.damaged(error))?;
            for (row, (_, at)) in rows.iter().enumerate() {
                hits[*at] = Some(read.hit(row));
            }
            Ok(())
        })?;
        if read == Scanned::LeftOut && !left_out.iter().any(|known| Arc::ptr_eq(known, &block)) {
            left_out.push(block);
        }
    }
    let warning = |block: Arc<Block>| {
        let (name, rows) = (block.entry.parquet_name(), block.entry.rows);
        format!("the block {name} is damaged: its {rows} events are not searched")
    };
    let warnings = bounded(left_out.into_iter().map(warning).collect());
    Ok(Page { hits: hits.into_iter().flatten().collect(), cursor, warnings })
}

/// What became of a step on one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scanned {
    /// It was done, or the block is no part of the store any more.
    Whole,
    /// The block is damaged.
    LeftOut,
}

/// Runs a step on one block. A damaged block does not spoil the answer of the others: it is noted and left out from then on.
/// A block that retention took away meanwhile is left out too.
fn guarded(
    block: &Arc<Block>,
    notice: &mut dyn FnMut(Notice),
    step: impl FnOnce(&mut dyn FnMut(Notice)) -> Result<(), BlockError>,
) -> Result<Scanned, IndexError> {
    // The decoder's own checks do not catch every damaged byte: some end in a panic. What the step leaves behind is a list
    // of whole matches, true whenever it stops.
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| step(notice)))
        .unwrap_or_else(|_| Err(BlockError::Damaged(format!("{}: cannot be decoded", block.path().display()))));
    match result {
        Ok(()) => Ok(Scanned::Whole),
        Err(_) if block.is_retired() => Ok(Scanned::Whole),
        Err(BlockError::Damaged(what)) => {
            notice(Notice::Damaged(block.clone(), what));
            Ok(Scanned::LeftOut)
        }
        Err(BlockError::Io(what)) => Err(IndexError::Failed(what)),
    }
}
