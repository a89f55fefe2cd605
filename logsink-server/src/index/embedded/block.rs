//! A published block: one Parquet file, sorted by key, with its side file beside it.
//!
//! Pages hold 1,024 rows in large columns, so that a page is read for its own filter's sake, and 4,096 in small ones.
//! The numbers behind the settings are in PERFORMANCE.md, "The embedded index".

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use bytes::Bytes;
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
            RowSelection,
        },
    },
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::PageIndexPolicy,
        properties::{EnabledStatistics, WriterProperties},
        reader::{ChunkReader, Length},
    },
    schema::types::ColumnPath,
};

use super::{
    columns::Plan,
    key::Key,
    manifest::{self, Entry},
    side::{self, Side},
};
use crate::otlp::RecordView;

/// Rows turned into columns at a time: enough for the encoders, little in memory.
const BATCH_ROWS: usize = 8_192;
/// Rows in a page of a small column: fewer page headers to read than with 1,024.
const SMALL_PAGE_ROWS: usize = 4_096;
/// Above what 1,024 rows have, so that the row limit cuts the pages and they line up with the filters.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Why a block did not give what was asked of it.
#[derive(Debug)]
pub(super) enum BlockError {
    /// The file does not hold what the manifest says; names it.
    Damaged(String),
    /// Its file could not be read or written.
    Io(String),
}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// Writes the records of a block, sorted by key, and its side file; durable when it returns, except for the name of the
/// day's directory in its parent.
pub(super) fn write(dir: &Path, rows: &[(Key, RecordView<'_>)], mut entry: Entry) -> Result<Entry, BlockError> {
    let plan = Plan::choose(rows);
    let path = dir.join(entry.parquet_name());
    let temporary = path.with_extension("parquet.tmp");
    let mut file =
        Checked { inner: BufWriter::new(File::create(&temporary)?), bytes: 0, crc32: crc32fast::Hasher::new() };
    let odd = |error: &dyn std::fmt::Display| BlockError::Io(format!("cannot write {}: {error}", path.display()));
    let mut writer = ArrowWriter::try_new(&mut file, plan.schema.clone(), Some(properties(&plan.schema)))
        .map_err(|error| odd(&error))?;
    let mut side = side::Builder::default();
    for rows in rows.chunks(BATCH_ROWS) {
        let batch = plan.fill(rows).map_err(|error| odd(&error))?;
        writer.write(&batch).map_err(|error| odd(&error))?;
        side.add(&batch).map_err(|error| odd(&error))?;
    }
    writer.close().map_err(|error| odd(&error))?;
    file.flush()?;
    file.inner.get_ref().sync_all()?;
    fs::rename(&temporary, &path)?;

    let (side, severities, services) = side.finish();
    entry.parquet_bytes = file.bytes;
    entry.parquet_crc32 = file.crc32.finalize();
    (entry.severities, entry.services) = (severities, services);
    entry.side_bytes = write_side(dir, &entry, &side)?;
    Ok(entry)
}

/// Writes a side file durably; says how many bytes it has.
fn write_side(dir: &Path, entry: &Entry, side: &Side) -> io::Result<u64> {
    let bytes = side.encode(entry).map_err(io::Error::other)?;
    let path = dir.join(entry.side_name());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::Error::other("the side file has no name"));
    };
    manifest::write_durably(parent, name, &[&bytes])?;
    Ok(bytes.len() as u64)
}

fn properties(schema: &Schema) -> WriterProperties {
    // Level 1: higher ones take much more CPU for a few per cent.
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default());
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("logsink-server ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_max_row_group_row_count(None)
        .set_write_batch_size(side::PAGE_ROWS)
        .set_data_page_size_limit(PAGE_BYTES_MAX)
        .set_dictionary_page_size_limit(PAGE_BYTES_MAX)
        .set_data_page_row_count_limit(SMALL_PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_compression(Compression::UNCOMPRESSED);
    for field in schema.fields() {
        let column = || ColumnPath::from(field.name().as_str());
        use arrow_schema::DataType::{Dictionary, FixedSizeBinary, Int32, Int64, Timestamp, Utf8};
        properties = match field.data_type() {
            Dictionary(..) => properties.set_column_dictionary_enabled(column(), true),
            Timestamp(..) | Int64 | Int32 => properties
                .set_column_dictionary_enabled(column(), false)
                .set_column_encoding(column(), Encoding::DELTA_BINARY_PACKED),
            Utf8 => properties
                .set_column_dictionary_enabled(column(), false)
                .set_column_compression(column(), zstd)
                .set_column_data_page_row_count_limit(column(), side::PAGE_ROWS)
                .set_column_statistics_enabled(column(), EnabledStatistics::None),
            FixedSizeBinary(_) => properties
                .set_column_dictionary_enabled(column(), false)
                .set_column_data_page_row_count_limit(column(), side::PAGE_ROWS)
                .set_column_statistics_enabled(column(), EnabledStatistics::None),
            _ => properties.set_column_dictionary_enabled(column(), false),
        };
    }
    properties.build()
}

/// A block on disk.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) entry: Entry,
    dir: PathBuf,
    /// Set before its files are deleted: a search that still knows it goes on without it.
    retired: AtomicBool,
    /// What was wrong with it, when it was found damaged.
    damage: Mutex<Option<String>>,
    /// Held while its side file is made again: one search does it, the others wait.
    side_repair: Mutex<()>,
}

impl Block {
    pub(super) fn new(dir: &Path, entry: Entry) -> Self {
        Self {
            entry,
            dir: dir.to_owned(),
            retired: AtomicBool::new(false),
            damage: Mutex::new(None),
            side_repair: Mutex::new(()),
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(self.entry.parquet_name())
    }

    /// When retention by age counts it as having happened: a clock in the future does not keep it.
    pub(super) fn newest_ns(&self) -> i64 {
        self.entry.time_max_ns.min(self.entry.published_ns)
    }

    /// Deletes its files; the manifest must not name it any more.
    pub(super) fn retire(&self) -> io::Result<()> {
        self.retired.store(true, Ordering::Release);
        for name in [self.entry.parquet_name(), self.entry.side_name()] {
            match fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Goes with the day's last block; fails, as it should, while there are others.
        let _ = fs::remove_dir(self.dir.join(&self.entry.day));
        Ok(())
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// What is wrong with it, if it was found damaged.
    pub(super) fn damage(&self) -> Option<String> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that it is damaged; `true` the first time.
    pub(super) fn set_damage(&self, what: String) -> bool {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        let first = damage.is_none();
        *damage = Some(what);
        first
    }

    /// The error that says that it is damaged and how.
    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> BlockError {
        BlockError::Damaged(format!("{}: {what}", self.path().display()))
    }

    /// Opens the Parquet file and reads its footer.
    pub(super) fn open(&self) -> Result<Opened, BlockError> {
        let file = match File::open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.damaged("the file is gone")),
            Err(error) => return Err(BlockError::Io(format!("cannot open {}: {error}", self.path().display()))),
        };
        let len = file.metadata()?.len();
        if len != self.entry.parquet_bytes {
            return Err(self.damaged(format_args!("it has {len} bytes instead of {}", self.entry.parquet_bytes)));
        }
        let file = BlockFile { file: Arc::new(file), len };
        let options = ArrowReaderOptions::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(|error| self.damaged(error))?;
        let rows = metadata.metadata().file_metadata().num_rows();
        if rows != i64::from(self.entry.rows) || metadata.metadata().num_row_groups() != 1 {
            return Err(self.damaged(format_args!("it has {rows} rows instead of {}", self.entry.rows)));
        }
        Ok(Opened { file, metadata })
    }

    /// Its side, made again when the file is missing or not its own; `true` when that was so.
    pub(super) fn side(&self, opened: &Opened) -> Result<(Side, bool), BlockError> {
        if let Ok(side) = self.read_side() {
            return Ok((side, false));
        }
        let _repair = self.side_repair.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read_side() {
            Ok(side) => Ok((side, false)),
            Err(_) if self.is_retired() => Err(self.damaged("its files are gone")),
            Err(why) => {
                let path = self.dir.join(self.entry.side_name());
                tracing::warn!(file = %path.display(), %why, "making a block's filters again");
                let mut builder = side::Builder::default();
                let columns = 0..opened.metadata.schema().fields().len();
                for batch in opened.read(columns.collect(), None, BATCH_ROWS).map_err(|error| self.damaged(error))? {
                    let batch = batch.map_err(|error| self.damaged(error))?;
                    builder.add(&batch).map_err(|error| self.damaged(error))?;
                }
                let side = builder.finish().0;
                if let Err(error) = write_side(&self.dir, &self.entry, &side) {
                    // The search has what it needs; the next one tries again.
                    tracing::warn!(file = %path.display(), %error, "cannot write a block's filters");
                }
                Ok((side, true))
            }
        }
    }

    fn read_side(&self) -> Result<Side, String> {
        let bytes = fs::read(self.dir.join(self.entry.side_name())).map_err(|error| error.to_string())?;
        Side::decode(&Bytes::from(bytes), &self.entry)
    }

    /// Reads columns of some rows, ascending, as one batch.
    pub(super) fn read(
        &self,
        opened: &Opened,
        columns: Vec<usize>,
        rows: &[Range<usize>],
    ) -> Result<RecordBatch, BlockError> {
        let wanted: usize = rows.iter().map(ExactSizeIterator::len).sum();
        let selection = RowSelection::from_consecutive_ranges(rows.iter().cloned(), self.entry.rows as usize);
        let mut reader = opened.read(columns, Some(selection), wanted.max(1)).map_err(|error| self.damaged(error))?;
        let batch = match reader.next() {
            Some(batch) => batch.map_err(|error| self.damaged(error))?,
            None => RecordBatch::new_empty(reader_schema(&reader)),
        };
        if batch.num_rows() != wanted {
            return Err(self.damaged(format_args!("{} rows where {wanted} should be", batch.num_rows())));
        }
        Ok(batch)
    }
}

fn reader_schema(reader: &ParquetRecordBatchReader) -> arrow_schema::SchemaRef {
    arrow_array::RecordBatchReader::schema(reader)
}

/// An open Parquet file and its footer.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    file: BlockFile,
    metadata: ArrowReaderMetadata,
}

impl Opened {
    pub(super) fn schema(&self) -> &Schema {
        self.metadata.schema()
    }

    /// The places of these columns; one that the block does not have is left out.
    pub(super) fn columns<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Vec<usize> {
        names.into_iter().filter_map(|name| self.schema().index_of(name).ok()).collect()
    }

    fn read(
        &self,
        columns: Vec<usize>,
        selection: Option<RowSelection>,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader, ParquetError> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns);
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
            .with_projection(mask)
            .with_batch_size(batch_rows);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        builder.build()
    }
}

/// Reads at offsets, so that searches in several threads share one file without moving each other's place.
#[derive(Debug, Clone)]
struct BlockFile {
    file: Arc<File>,
    len: u64,
}

impl Length for BlockFile {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for BlockFile {
    type T = BufReader<Tail>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        // Asked for page headers only, which are some tens of bytes.
        Ok(BufReader::with_capacity(256, Tail { file: self.file.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} are beyond the file's {}", self.len)));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(Bytes::from(bytes))
    }
}

/// A file from some place on.
#[derive(Debug)]
struct Tail {
    file: Arc<File>,
    at: u64,
}

impl Read for Tail {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Counts and checksums what is written.
struct Checked<W> {
    inner: W,
    bytes: u64,
    crc32: crc32fast::Hasher,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        self.crc32.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
