//! `logsink-peers`: without arguments the whole comparison, with `--case` one measurement of one case, for the parent.

fn main() -> anyhow::Result<()> {
    logsink_peers::child::or_parent(None)
}
