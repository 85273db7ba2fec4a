//! Promises about content: staged, opened, kept.

use instep_chunk::content_id;
use instep_core::id::Dot;
use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Keep, Outcome};

use super::scene::{foreign_version, p, read_all};
use super::{Scene, Stop, Verdict, Want, list_promises};
use crate::content::{Bytes, NoSources};
use crate::records::{Book, ConflictRecord, TrashRecord, hex};

list_promises! {
    Nothing content_at_its_path_cannot_be_read,
    Nothing content_is_read_under_a_wrong_identity,
    Nothing an_empty_or_a_big_file_cannot_be_read,
    Writable staged_content_is_shown_too_early,
    Writable staged_content_is_not_used,
    Writable wrong_bytes_are_staged,
    Writable staging_twice_fails,
    Writable an_overwritten_file_is_lost,
    Writable a_deleted_file_is_lost,
    Writable a_conflict_loser_is_lost,
    Links a_replaced_link_is_not_listed,
    Writable a_deleted_file_cannot_be_restored,
    Writable a_restored_file_overwrites_another,
    Writable a_purge_destroys_an_open_conflict,
    Writable bringing_a_loser_back_takes_it_from_its_conflict,
    Writable the_loser_of_a_settled_conflict_is_kept_for_ever,
}

fn content_at_its_path_cannot_be_read(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"hello world")?;
    s.observe()?;
    s.content(&path, b"hello world")?;
    let Some(mut content) = s.replica().open(&path, content_id(b"hello world"))? else {
        return Err(Stop::Broken("it opens only once".into()));
    };
    ensure!(content.size() == 11, "its size is {}", content.size());
    let mut buf = [0; 5];
    let n = content.read_at(6, &mut buf)?;
    ensure!(&buf[..n] == b"world", "at 6 there is {:?}", &buf[..n]);
    ensure!(
        content.read_at(11, &mut buf)? == 0,
        "there is more than the end"
    );
    ensure!(
        content.read_at(1 << 40, &mut buf)? == 0,
        "there is something far beyond the end"
    );
    ensure!(content.unchanged(), "it claims to have changed");
    Ok(())
}

fn content_is_read_under_a_wrong_identity(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"hello")?;
    s.observe()?;
    ensure!(
        s.replica().open(&path, content_id(b"other"))?.is_none(),
        "content that is not here"
    );
    ensure!(
        s.replica().open(&p("b")?, content_id(b"b"))?.is_none(),
        "a path that is not here"
    );
    Ok(())
}

fn an_empty_or_a_big_file_cannot_be_read(s: &mut Scene<'_>) -> Verdict {
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    for (name, bytes) in [("empty", &b""[..]), ("big", &big)] {
        let path = s.file(name, bytes)?;
        s.observe()?;
        ensure!(
            s.shown(&path)?.content == content_id(bytes),
            "{path} has another identity"
        );
        s.content(&path, bytes)?;
    }
    Ok(())
}

fn staged(s: &Scene<'_>, bytes: &[u8], claimed: &[u8]) -> Result<Outcome, Stop> {
    Ok(s.replica()
        .stage(&p("a")?, content_id(claimed), &mut Bytes(bytes.to_vec()))?)
}

fn staged_content_is_shown_too_early(s: &mut Scene<'_>) -> Verdict {
    ensure!(
        !s.replica().is_staged(content_id(b"new")),
        "staged before it came"
    );
    ensure!(staged(s, b"new", b"new")? == Outcome::Done, "refused");
    ensure!(
        s.replica().is_staged(content_id(b"new")),
        "it does not know what it staged"
    );
    ensure!(
        s.user().tree()?.is_empty(),
        "the user sees {:?}",
        s.user().tree()?
    );
    s.content(&p("a")?, b"new")?;
    s.quiet()
}

fn staged_content_is_not_used(s: &mut Scene<'_>) -> Verdict {
    let path = p("a")?;
    staged(s, b"new", b"new")?;
    let action = s.incoming(&path, Want::File(b"new"))?;
    let outcome = s.replica().apply(&[action], &NoSources)?;
    ensure!(outcome == [Outcome::Done], "{outcome:?}");
    ensure!(s.user().read(&path)? == b"new", "other bytes");
    s.quiet()
}

fn wrong_bytes_are_staged(s: &mut Scene<'_>) -> Verdict {
    for bytes in [&b"wrong"[..], b"", b"right and more", b"righ"] {
        let outcome = staged(s, bytes, b"right")?;
        ensure!(
            outcome != Outcome::Done,
            "{bytes:?} passed for the right content"
        );
        ensure!(
            !s.replica().is_staged(content_id(b"right")),
            "{bytes:?} were kept"
        );
    }
    Ok(())
}

fn staging_twice_fails(s: &mut Scene<'_>) -> Verdict {
    for _ in 0..2 {
        let outcome = staged(s, b"new", b"new")?;
        ensure!(outcome == Outcome::Done, "{outcome:?}");
    }
    Ok(())
}

/// The trash records of this content.
fn listed(s: &Scene<'_>, bytes: &[u8]) -> Result<Vec<TrashRecord>, Stop> {
    let id = content_id(bytes).to_string();
    let mut out = Vec::new();
    for body in s.trash_records()? {
        let record: TrashRecord = serde_json::from_str(&body)?;
        if record.content == id {
            out.push(record);
        }
    }
    Ok(out)
}

fn expect_listed(s: &Scene<'_>, bytes: &[u8], why: &str, kind: &str) -> Verdict {
    let records = listed(s, bytes)?;
    ensure!(records.len() == 1, "listed as {records:?}");
    let r = &records[0];
    ensure!(
        r.why == why && r.kind == kind && r.path == "a",
        "listed as {r:?}"
    );
    Ok(())
}

fn an_overwritten_file_is_lost(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"old")?;
    s.observe()?;
    s.receive(&path, Want::File(b"new"))?;
    s.content(&path, b"new")?;
    s.content(&path, b"old")?;
    expect_listed(s, b"old", "overwritten", "file")
}

fn a_deleted_file_is_lost(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"old")?;
    s.observe()?;
    s.receive(&path, Want::Nothing)?;
    ensure!(s.seen(&path)?.is_none(), "it is still there");
    s.content(&path, b"old")?;
    expect_listed(s, b"old", "deleted", "file")
}

fn a_conflict_loser_is_lost(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"ours")?;
    s.observe()?;
    let row = s.row(&path)?;
    let Some(loser) = row.shown else {
        return Err(Stop::Broken("nothing is shown".into()));
    };
    let theirs = s.incoming(&path, Want::File(b"theirs"))?;
    let winner = foreign_version(Want::File(b"theirs"), None);
    let dot = s.foreign_dot();
    let both = row
        .entry
        .merge(&instep_core::entry::Entry::first(dot, winner));
    s.done(
        &Action {
            keep: Keep::Version(loser),
            entry: both,
            shown: Some(dot),
            ..theirs
        },
        &[b"theirs"],
    )?;
    s.content(&path, b"ours")?;
    let records = listed(s, b"ours")?;
    ensure!(records.len() == 1, "listed as {records:?}");
    ensure!(
        records[0].loser == Some(loser.to_string()),
        "listed as {records:?}"
    );
    s.quiet()
}

fn a_replaced_link_is_not_listed(s: &mut Scene<'_>) -> Verdict {
    let path = p("a")?;
    s.edit(&path, Want::Link(b"target"))?;
    s.observe()?;
    let action = s.incoming(&path, Want::File(b"new"))?;
    ensure!(matches!(action.goal, Goal::File { .. }), "{action:?}");
    s.done(&action, &[b"new"])?;
    expect_listed(s, b"target", "overwritten", "link")?;
    if let Some(mut target) = s.replica().open(&path, content_id(b"target"))? {
        ensure!(
            read_all(target.as_mut())? == b"target",
            "its target is another"
        );
    }
    Ok(())
}

fn deleted(s: &Scene<'_>) -> Result<(RelPath, String), Stop> {
    let path = s.file("a", b"old")?;
    s.observe()?;
    s.receive(&path, Want::Nothing)?;
    let Some((key, _)) = s.replica().records(Book::Trash)?.pop() else {
        return Err(Stop::Broken("nothing is listed in the trash".into()));
    };
    Ok((path, key))
}

fn a_deleted_file_cannot_be_restored(s: &mut Scene<'_>) -> Verdict {
    let (path, key) = deleted(s)?;
    let back = s.replica().restore(&key, None)?;
    ensure!(
        back == path && s.user().read(&path)? == b"old",
        "it came back as {back}"
    );
    ensure!(s.trash_records()?.is_empty(), "it is still in the trash");
    s.observe()?;
    ensure!(
        s.row(&path)?.present().is_some(),
        "the look does not find it"
    );
    s.quiet()
}

fn a_restored_file_overwrites_another(s: &mut Scene<'_>) -> Verdict {
    let (path, key) = deleted(s)?;
    s.file("a", b"mine")?;
    ensure!(
        s.replica().restore(&key, None).is_err(),
        "over another file"
    );
    ensure!(s.user().read(&path)? == b"mine", "the other file changed");
    let to = p("elsewhere")?;
    ensure!(
        s.replica().restore(&key, Some(&to))? == to,
        "at another path than asked for"
    );
    ensure!(s.user().read(&to)? == b"old", "with other content");
    Ok(())
}

/// What is at a path loses to a file from elsewhere, and is kept as a conflict's loser; returns its dot.
fn lose(s: &mut Scene<'_>, path: &RelPath) -> Result<Dot, Stop> {
    let Some(loser) = s.row(path)?.shown else {
        return Err(Stop::Broken("nothing is shown".into()));
    };
    let theirs = s.incoming(path, Want::File(b"theirs"))?;
    s.done(
        &Action {
            keep: Keep::Version(loser),
            ..theirs
        },
        &[b"theirs"],
    )?;
    Ok(loser)
}

fn a_purge_destroys_an_open_conflict(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"ours")?;
    let other = s.file("b", b"superseded")?;
    s.observe()?;
    lose(s, &path)?;
    s.receive(&other, Want::Nothing)?;
    ensure!(
        s.replica().purge(0)? == 0,
        "purged what was displaced later"
    );
    ensure!(
        s.replica().purge(i64::MAX)? == 1,
        "purged another number than one"
    );
    s.content(&path, b"ours")?;
    ensure!(
        listed(s, b"superseded")?.is_empty(),
        "what was destroyed is still listed"
    );
    Ok(())
}

fn bringing_a_loser_back_takes_it_from_its_conflict(s: &mut Scene<'_>) -> Verdict {
    // Too much to be remembered by whoever read it.
    let ours = vec![7; 1024 * 1024];
    let path = s.file("a", &ours)?;
    s.observe()?;
    lose(s, &path)?;
    let Some((key, _)) = s.replica().records(Book::Trash)?.pop() else {
        return Err(Stop::Broken("the loser is not listed".into()));
    };
    let to = p("elsewhere")?;
    s.replica().restore(&key, Some(&to))?;
    ensure!(s.user().read(&to)? == ours, "with other content");
    s.user().write(&to, b"edited")?;
    s.content(&path, &ours)?;
    ensure!(
        s.replica().restore(&key, Some(&to)).is_err(),
        "it overwrote what is there"
    );
    Ok(())
}

fn the_loser_of_a_settled_conflict_is_kept_for_ever(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"ours")?;
    s.observe()?;
    let loser = lose(s, &path)?;
    let settled_ns = i64::MAX - 10;
    let record = ConflictRecord {
        path: path.to_string(),
        path_hex: hex(path.as_bytes()),
        loser: loser.to_string(),
        winner: String::new(),
        content: content_id(b"ours").to_string(),
        kind: "file".into(),
        size: 4,
        mode: 0o644,
        te: 0,
        winner_te: 0,
        policy: "Newest".into(),
        noticed_ns: 0,
        resolved: Some("newest".into()),
        resolved_ns: Some(settled_ns),
    };
    let body = serde_json::to_string(&record).unwrap_or_default();
    s.replica()
        .write_record(Book::Conflicts, &record.loser, Some(&body))?;
    ensure!(
        s.replica().purge(settled_ns)? == 0,
        "destroyed although it was settled only now"
    );
    s.content(&path, b"ours")?;
    ensure!(s.replica().purge(i64::MAX)? == 1, "it is still kept");
    ensure!(
        listed(s, b"ours")?.is_empty(),
        "what was destroyed is still listed"
    );
    Ok(())
}
