//! Promises about what is recorded of a user's change.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use instep_chunk::content_id;
use instep_core::entry::Entry;
use instep_core::id::Dot;
use instep_core::path::RelPath;
use instep_core::row::Held;
use instep_core::version::Kind;

use super::scene::{FOREIGN_MODE, foreign_version, p};
use super::{Scene, Verdict, Want, list_promises};
use crate::records::Book;

list_promises! {
    Edited a_new_file_is_recorded_wrongly,
    Nothing a_deletion_forgets_what_it_deleted,
    Nothing a_file_cannot_come_back_after_its_deletion,
    Edited an_edit_forgets_what_it_replaced,
    Nothing a_change_of_kind_is_recorded_wrongly,
    Links a_change_of_kind_with_links_is_recorded_wrongly,
    Modes + Edited a_chmod_counts_as_an_edit,
    Edited recording_twice_mints_twice,
    Edited a_dot_is_used_twice,
    Edited a_dot_is_used_twice_after_a_restart,
    Nothing a_restart_forgets_what_was_recorded,
    Edited a_rename_loses_its_trace,
    Links + Edited a_link_that_leaves_the_root_is_passed_on,
    Links + Edited a_link_that_became_unsafe_counts_as_deleted,
    Writable + Edited an_edit_leaves_an_old_sibling_alive,
    Writable + Edited content_that_was_waited_for_is_not_recognised,
    Writable + Edited unseen_content_is_superseded,
    Nothing a_listing_is_wrong,
    Nothing a_record_of_a_book_is_lost,
}

fn a_new_file_is_recorded_wrongly(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"hello")?;
    s.observe()?;
    let (row, v) = (s.row(&path)?, s.shown(&path)?);
    let seen = s.seen(&path)?;
    ensure!(
        (v.kind, v.content, v.size) == (Kind::File, content_id(b"hello"), 5),
        "{v:?}"
    );
    ensure!(
        seen.is_some_and(|o| o.mtime() == v.mtime),
        "another modification time: {v:?}"
    );
    ensure!(
        v.policy_epoch == s.share().policies.epoch(),
        "another policy epoch: {v:?}"
    );
    ensure!(
        v.prev.is_empty() && !v.meta_only && v.moved.is_none(),
        "it has a past: {v:?}"
    );
    ensure!(
        Some(v.te) <= v.mtime.nanos_since_epoch(),
        "ordered later than its own time: {v:?}"
    );
    ensure!(
        row.shown.is_some_and(|d| d.actor == s.replica().actor()),
        "{row:?}"
    );
    ensure!(
        row.print.is_some() && row.entry.siblings().len() == 1,
        "{row:?}"
    );
    Ok(())
}

fn a_deletion_forgets_what_it_deleted(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"hello")?;
    s.observe()?;
    s.edit(&path, Want::Nothing)?;
    s.observe()?;
    let (row, v) = (s.row(&path)?, s.shown(&path)?);
    ensure!(v.is_tomb() && v.content == content_id(b"hello"), "{v:?}");
    ensure!(
        row.print.is_none() && row.entry.siblings().len() == 1,
        "{row:?}"
    );
    s.quiet()
}

fn a_file_cannot_come_back_after_its_deletion(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"hello")?;
    for want in [
        Want::Nothing,
        Want::File(b"again"),
        Want::Nothing,
        Want::File(b"again"),
    ] {
        s.observe()?;
        s.edit(&path, want)?;
    }
    s.observe()?;
    let row = s.row(&path)?;
    ensure!(
        row.present().is_some_and(|v| v.kind == Kind::File),
        "{row:?}"
    );
    ensure!(
        row.entry.siblings().len() == 1,
        "the deletion is still alive: {row:?}"
    );
    s.quiet()
}

fn an_edit_forgets_what_it_replaced(s: &mut Scene<'_>) -> Verdict {
    let path = p("a")?;
    for bytes in [&b"1"[..], b"22", b"333"] {
        s.file("a", bytes)?;
        s.observe()?;
    }
    let v = s.shown(&path)?;
    ensure!(
        v.prev == [content_id(b"22"), content_id(b"1")],
        "{:?}",
        v.prev
    );
    ensure!(!v.meta_only, "an edit counts as a change of metadata");
    Ok(())
}

fn change_kinds(s: &Scene<'_>, wants: &[Want]) -> Verdict {
    for (i, before) in wants.iter().enumerate() {
        for (j, after) in wants.iter().enumerate() {
            let path = p(&format!("from-{i}-to-{j}"))?;
            s.edit(&path, *before)?;
            s.observe()?;
            s.edit(&path, *after)?;
            s.observe()?;
            s.quiet()?;
            let row = s.row(&path)?;
            let kind = row.on_disk().map_or(Kind::Tomb, |v| v.kind);
            ensure!(kind == after.kind(), "{before:?} to {after:?}: {row:?}");
            ensure!(
                row.entry.siblings().len() <= 1,
                "{before:?} to {after:?}: {row:?}"
            );
        }
    }
    Ok(())
}

fn a_change_of_kind_is_recorded_wrongly(s: &mut Scene<'_>) -> Verdict {
    change_kinds(s, &[Want::Nothing, Want::File(b"file"), Want::Dir])?;
    let inside = s.file("full/inside", b"one")?;
    s.observe()?;
    s.edit(&p("full")?, Want::File(b"now a file"))?;
    s.observe()?;
    ensure!(
        s.shown(&p("full")?)?.kind == Kind::File,
        "the directory is still there"
    );
    ensure!(
        s.shown(&inside)?.is_tomb(),
        "what was inside is still there"
    );
    s.quiet()
}

fn a_change_of_kind_with_links_is_recorded_wrongly(s: &mut Scene<'_>) -> Verdict {
    change_kinds(
        s,
        &[
            Want::Nothing,
            Want::File(b"file"),
            Want::Dir,
            Want::Link(b"file"),
        ],
    )
}

fn a_chmod_counts_as_an_edit(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"hello")?;
    s.user().chmod(&path, 0o644)?;
    s.observe()?;
    let first = s.shown(&path)?;
    s.pass_ms(20);
    s.user().chmod(&path, 0o600)?;
    s.observe()?;
    let second = s.shown(&path)?;
    ensure!(second.meta_only && second.mode == 0o600, "{second:?}");
    ensure!(
        second.content == first.content && second.prev == first.prev,
        "{second:?}"
    );
    ensure!(
        second.mode_te > first.mode_te,
        "the change of mode has no date: {second:?}"
    );
    s.file("a", b"edited")?;
    s.observe()?;
    let third = s.shown(&path)?;
    ensure!(
        third.mode_te == second.mode_te,
        "an edit dates the mode anew: {third:?}"
    );
    Ok(())
}

fn recording_twice_mints_twice(s: &mut Scene<'_>) -> Verdict {
    s.file("a", b"hello")?;
    let look = s.look()?;
    let changed = s.replica().record(&look, s.share())?;
    ensure!(changed == [p("a")?], "changed rows: {changed:?}");
    let rows = s.rows()?;
    s.replica().record(&look, s.share())?;
    ensure!(
        s.rows()? == rows,
        "the same look was recorded as another change"
    );
    Ok(())
}

fn mint(s: &Scene<'_>, dots: &mut BTreeSet<Dot>, round: usize) -> Verdict {
    for name in ["a", "b"] {
        let path = s.file(name, format!("round {round}").as_bytes())?;
        s.observe()?;
        let row = s.row(&path)?;
        let Some(dot) = row.shown else { continue };
        ensure!(
            dots.last().is_none_or(|last| dot > *last) && dots.insert(dot),
            "{dot} again"
        );
        ensure!(dot.counter > 0, "counters start at 1: {dot}");
    }
    Ok(())
}

fn a_dot_is_used_twice(s: &mut Scene<'_>) -> Verdict {
    let mut dots = BTreeSet::new();
    (0..5).try_for_each(|round| mint(s, &mut dots, round))?;
    ensure!(dots.len() == 10, "ten changes minted {}", dots.len());
    Ok(())
}

fn a_dot_is_used_twice_after_a_restart(s: &mut Scene<'_>) -> Verdict {
    let mut all = BTreeSet::new();
    for round in 0..4 {
        let mut dots = BTreeSet::new();
        mint(s, &mut dots, round)?;
        ensure!(all.is_disjoint(&dots), "{dots:?} were used before");
        all.append(&mut dots);
        s.reopen()?;
    }
    Ok(())
}

fn a_restart_forgets_what_was_recorded(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("d/a", b"hello")?;
    s.observe()?;
    s.replica().write_record(Book::Log, "1", Some("{}"))?;
    s.replica().barrier()?;
    let shown = s.shown(&path)?;
    s.reopen()?;
    ensure!(s.shown(&path)? == shown, "the version is another");
    ensure!(
        s.replica().read_record(Book::Log, "1")?.is_some(),
        "the log is empty"
    );
    s.quiet()
}

fn a_rename_loses_its_trace(s: &mut Scene<'_>) -> Verdict {
    let from = s.file("from", b"the same all the time")?;
    let to = p("to")?;
    s.observe()?;
    s.user().rename(&from, &to)?;
    s.observe()?;
    let (old, new) = (s.shown(&from)?, s.shown(&to)?);
    ensure!(old.is_tomb() && old.moved.as_ref() == Some(&to), "{old:?}");
    ensure!(
        new.moved.as_ref() == Some(&from) && new.content == old.content,
        "{new:?}"
    );
    s.quiet()
}

fn a_link_that_leaves_the_root_is_passed_on(s: &mut Scene<'_>) -> Verdict {
    for (name, target) in [
        ("up", &b"../x"[..]),
        ("absolute", b"/etc/passwd"),
        ("d/up", b"../../x"),
    ] {
        let path = p(name)?;
        s.user().symlink(&path, target)?;
        s.observe()?;
        let row = s.row(&path)?;
        ensure!(row.held == Some(Held::UnsafeLink), "{name}: {row:?}");
        ensure!(
            row.entry.is_empty() && row.shown.is_none(),
            "{name} has a version: {row:?}"
        );
    }
    s.quiet()
}

fn a_link_that_became_unsafe_counts_as_deleted(s: &mut Scene<'_>) -> Verdict {
    let path = p("link")?;
    s.edit(&path, Want::Link(b"inside"))?;
    s.observe()?;
    let before = s.row(&path)?;
    s.edit(&path, Want::Link(b"/outside"))?;
    s.observe()?;
    let row = s.row(&path)?;
    ensure!(
        row.held == Some(Held::UnsafeLink) && row.entry == before.entry,
        "{row:?}"
    );
    s.quiet()?;
    s.edit(&path, Want::Nothing)?;
    s.observe()?;
    ensure!(
        s.row(&path)?.entry == before.entry,
        "what was never passed on was deleted"
    );
    s.quiet()
}

fn an_edit_leaves_an_old_sibling_alive(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"ours")?;
    s.observe()?;
    let row = s.row(&path)?;
    let theirs = foreign_version(Want::File(b"theirs"), None);
    let both = row.entry.merge(&Entry::first(s.foreign_dot(), theirs));
    s.done(&s.telling(&path, both, row.shown)?, &[])?;
    ensure!(
        s.row(&path)?.entry.siblings().len() == 2,
        "the other version was not recorded"
    );
    s.file("a", b"edited")?;
    s.observe()?;
    let row = s.row(&path)?;
    ensure!(
        row.entry.siblings().len() == 1,
        "the user saw both, and both live on: {row:?}"
    );
    Ok(())
}

/// A version that is known but not here, as of a file that could not be fetched yet.
fn waiting(s: &Scene<'_>, path: &RelPath) -> Result<Dot, super::Stop> {
    let dot = s.foreign_dot();
    let entry = Entry::first(dot, foreign_version(Want::File(b"theirs"), None));
    s.done(&s.telling(path, entry, None)?, &[])?;
    s.quiet()?;
    Ok(dot)
}

fn content_that_was_waited_for_is_not_recognised(s: &mut Scene<'_>) -> Verdict {
    let path = p("a")?;
    let dot = waiting(s, &path)?;
    s.file("a", b"theirs")?;
    if s.replica().capabilities().modes {
        s.user().chmod(&path, FOREIGN_MODE)?;
    }
    s.observe()?;
    let row = s.row(&path)?;
    ensure!(
        row.shown == Some(dot),
        "a new version of the same content: {row:?}"
    );
    s.quiet()
}

fn unseen_content_is_superseded(s: &mut Scene<'_>) -> Verdict {
    let path = p("a")?;
    let dot = waiting(s, &path)?;
    s.file("a", b"ours, made without seeing theirs")?;
    s.observe()?;
    let row = s.row(&path)?;
    ensure!(
        row.entry.get(dot).is_some(),
        "their version is gone: {row:?}"
    );
    ensure!(row.entry.siblings().len() == 2, "{row:?}");
    s.quiet()
}

fn a_listing_is_wrong(s: &mut Scene<'_>) -> Verdict {
    for path in ["d/b", "d/a/x", "d/a.c", "e"] {
        s.file(path, b"x")?;
    }
    s.observe()?;
    let mut paths = Vec::new();
    let mut visit = |path: RelPath, _| {
        paths.push(path.to_string());
        ControlFlow::Continue(())
    };
    s.replica().children(&p("d")?, &mut visit)?;
    s.replica().subtree(&p("d")?, &mut visit)?;
    s.replica().children(&RelPath::root(), &mut visit)?;
    let want = [
        "d/a", "d/a.c", "d/b", "d/a", "d/a.c", "d/b", "d/a/x", "d", "e",
    ];
    ensure!(paths == want, "{paths:?}");
    let mut count = 0;
    s.replica().subtree(&RelPath::root(), &mut |_, _| {
        count += 1;
        ControlFlow::Break(())
    })?;
    ensure!(count == 1, "the visitor was not heeded: {count}");
    Ok(())
}

fn a_record_of_a_book_is_lost(s: &mut Scene<'_>) -> Verdict {
    let r = s.replica();
    ensure!(
        r.read_record(Book::Holds, "k")?.is_none(),
        "a new replica has holds"
    );
    r.write_record(Book::Holds, "k2", Some("{\"a\":2}"))?;
    r.write_record(Book::Holds, "k1", Some("{\"a\":1}"))?;
    r.write_record(Book::Holds, "k2", Some("{\"a\":3}"))?;
    r.write_record(Book::Conflicts, "k1", Some("{}"))?;
    r.write_record(Book::Conflicts, "k1", None)?;
    let pair = |k: &str, b: &str| (k.to_string(), b.to_string());
    let holds = r.records(Book::Holds)?;
    ensure!(
        holds == [pair("k1", "{\"a\":1}"), pair("k2", "{\"a\":3}")],
        "{holds:?}"
    );
    ensure!(
        r.records(Book::Conflicts)?.is_empty(),
        "a removed record is still there"
    );
    ensure!(
        r.read_record(Book::Holds, "k1")?.as_deref() == Some("{\"a\":1}"),
        "not found by key"
    );
    Ok(())
}
