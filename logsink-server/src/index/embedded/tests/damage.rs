//! Damaged and missing files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;

/// A store of three blocks, closed.
async fn three_blocks(dir: &Path) -> (PathBuf, Vec<String>) {
    let store = open(dir, 100);
    for message in messages(0, 6, 50, |n| Event { message: format!("word{n}"), ..Event::at(n) }) {
        store.write(&[message]).await.unwrap();
    }
    assert_eq!(store.stats().blocks, 3);
    (dir.join("1970-01-01"), ids(&store, "").await)
}

#[tokio::test]
async fn a_side_file_that_is_not_its_blocks_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (day, _) = three_blocks(dir.path()).await;
    let side = day.join("0000000001.filters");
    let good = fs::read(&side).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let others = fs::read(day.join("0000000002.filters")).unwrap();
    for bad in [None, Some(flipped), Some(others), Some(good[..good.len() - 1].to_vec()), Some(Vec::new())] {
        match bad {
            None => fs::remove_file(&side).unwrap(),
            Some(bytes) => fs::write(&side, bytes).unwrap(),
        }
        let store = open(dir.path(), 100);
        assert_eq!(ids(&store, "\"word150\"").await, ["0-3-0"]);
        assert_eq!(store.stats().sides_rebuilt, 1);
        assert_eq!(ids(&store, "\"word150\"").await, ["0-3-0"]);
        assert_eq!(store.stats().sides_rebuilt, 1);
        assert_eq!(fs::read(&side).unwrap().len(), good.len());
    }
}

#[tokio::test]
async fn a_damaged_block_is_named_and_the_others_answer() {
    for kind in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (day, all) = three_blocks(dir.path()).await;
        let path = day.join("0000000001.parquet");
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len();
        match kind {
            0 => fs::remove_file(&path).unwrap(),
            1 => fs::write(&path, &bytes[..len / 2]).unwrap(),
            2 => fs::write(&path, vec![0; len]).unwrap(),
            _ => {
                // The footer is whole, the data is not.
                bytes[4..len * 2 / 5].fill(0xa5);
                fs::write(&path, bytes).unwrap();
            }
        }
        let store = open(dir.path(), 100);
        let found = ids(&store, "").await;
        assert_eq!(found.len(), 200, "kind {kind}");
        assert!(found.iter().all(|id| all.contains(id) && !id.starts_with("0-2-") && !id.starts_with("0-3-")));
        assert!(store.warnings()[0].contains("0000000001.parquet: "), "{:?}", store.warnings());
        // The answer says what it lacks, and only where it lacks something.
        let warned = "the block 1970-01-01/0000000001.parquet is damaged: its 100 events are not searched";
        assert_eq!(store.search(&query("")).await.unwrap().warnings, [warned]);
        let elsewhere = Query { to_ns: 50, ..query("") };
        assert_eq!(store.search(&elsewhere).await.unwrap().warnings, [""; 0]);
        assert_eq!(store.stats().blocks_damaged, 1);
        let damaged = store.damaged();
        assert!(damaged.len() == 1 && damaged[0].contains("0000000001.parquet: "), "{damaged:?}");
        assert_eq!(ids(&store, "").await, found);
        assert_eq!(store.stats().blocks_damaged, 1);
    }
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (day, _) = three_blocks(dir.path()).await;
    fs::write(day.join("notes.parquet"), "mine").unwrap();
    drop(open(dir.path(), 100));
    assert!(day.join("notes.parquet").exists());
}
