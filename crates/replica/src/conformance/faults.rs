//! Promises that hold when something is wrong: with the root, a directory, the disk, the watcher.

use std::time::Duration;

use instep_core::path::RelPath;
use instep_core::plan::{Code, Outcome};

use super::scene::{found, p};
use super::{Fault, Scene, Stop, Verdict, Want, list_promises};
use crate::error::ErrorKind;
use crate::hints::{HintSet, Waker};
use crate::look::Scope;

list_promises! {
    Nothing a_root_that_vanished_counts_as_emptied,
    Edited an_unreadable_directory_counts_as_emptied,
    Writable a_read_only_replica_is_changed,
    Writable a_full_disk_loses_a_file,
    Writable an_ignored_file_counts_as_deleted,
    Hints + Edited a_user_edit_gives_no_hint,
    Hints + Edited a_new_directory_hides_what_is_written_into_it,
    Hints + Edited hints_come_twice,
    Hints lost_hints_are_not_mentioned,
}

fn a_root_that_vanished_counts_as_emptied(s: &mut Scene<'_>) -> Verdict {
    s.file("d/a", b"one")?;
    s.observe()?;
    s.inject(&Fault::Gone, true)?;
    for error in [
        s.replica().guard().err(),
        s.replica().look(&Scope::Everything).err(),
    ] {
        let kind = error.map(|e| e.kind);
        ensure!(kind == Some(ErrorKind::Gone), "without its root: {kind:?}");
    }
    s.inject(&Fault::Gone, false)?;
    s.replica().guard()?;
    s.quiet()
}

fn an_unreadable_directory_counts_as_emptied(s: &mut Scene<'_>) -> Verdict {
    let (dir, inside) = (p("d")?, s.file("d/a", b"one")?);
    let outside = s.file("other", b"one")?;
    s.observe()?;
    s.inject(&Fault::Unreadable(dir.clone()), true)?;
    s.file("other", b"edited")?;
    let look = s.look()?;
    ensure!(
        found(&look, &inside).is_none(),
        "found below: {:?}",
        look.findings
    );
    ensure!(
        found(&look, &outside).is_some(),
        "it stopped everything else"
    );
    let named = look
        .problems
        .iter()
        .any(|p| p.path == dir && p.code == Code::Unreadable);
    ensure!(named, "problems: {:?}", look.problems);
    s.replica().record(&look, s.share())?;
    s.inject(&Fault::Unreadable(dir), false)?;
    s.observe()?;
    ensure!(!s.shown(&inside)?.is_tomb(), "it was recorded as deleted");
    Ok(())
}

fn a_read_only_replica_is_changed(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"old")?;
    s.observe()?;
    let action = s.incoming(&path, Want::File(b"new"))?;
    s.inject(&Fault::ReadOnly, true)?;
    match s.apply(std::slice::from_ref(&action), &[b"new"]) {
        Ok(outcomes) => ensure!(outcomes[0] != Outcome::Done, "{outcomes:?}"),
        Err(Stop::Broken(_)) => {}
        Err(other) => return Err(other),
    }
    ensure!(s.user().read(&path)? == b"old", "it was overwritten");
    s.inject(&Fault::ReadOnly, false)?;
    s.done(&action, &[b"new"])
}

fn a_full_disk_loses_a_file(s: &mut Scene<'_>) -> Verdict {
    const BIG: &[u8] = &[7; 1 << 20];
    let path = s.file("a", b"old")?;
    s.observe()?;
    let action = s.incoming(&path, Want::File(BIG))?;
    s.inject(&Fault::Full, true)?;
    match &s.apply(std::slice::from_ref(&action), &[BIG])?[..] {
        [Outcome::Blocked(problem)] if problem.code == Code::NoSpace => {}
        other => return Err(Stop::Broken(format!("{other:?}"))),
    }
    ensure!(s.user().read(&path)? == b"old", "the old content is gone");
    s.receive(&p("small")?, Want::File(b""))?;
    s.quiet()?;
    s.inject(&Fault::Full, false)?;
    s.done(&action, &[BIG])?;
    s.quiet()
}

fn an_ignored_file_counts_as_deleted(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"mine")?;
    s.observe()?;
    s.inject(&Fault::Ignored(path.clone()), true)?;
    s.observe()?;
    let row = s.row(&path)?;
    let alive = row.entry.siblings().iter().all(|(_, v)| !v.is_tomb());
    ensure!(alive && !row.entry.is_empty(), "{row:?}");
    ensure!(
        row.held.is_some() && row.print.is_none(),
        "it is still tracked: {row:?}"
    );
    ensure!(s.user().read(&path)? == b"mine", "it was touched");
    s.quiet()?;
    s.inject(&Fault::Ignored(path.clone()), false)?;
    s.observe()?;
    let again = s.row(&path)?;
    ensure!(
        again.entry == row.entry && again.present().is_some(),
        "not adopted: {again:?}"
    );
    s.quiet()
}

/// Collects hints until `enough`, at most a few seconds.
fn gather(
    s: &Scene<'_>,
    waker: &Waker,
    enough: impl Fn(&HintSet) -> Result<bool, Stop>,
) -> Result<HintSet, Stop> {
    let mut all = HintSet::default();
    for _ in 0..100 {
        all.extend(s.replica().take_hints());
        if enough(&all)? {
            return Ok(all);
        }
        // A hint may have come between the two calls; then this returns at once.
        waker.wait(Duration::from_millis(50));
        s.pass_ms(20);
    }
    Err(Stop::Broken(format!("no hint came: {all:?}")))
}

fn watched(s: &Scene<'_>) -> Result<Waker, Stop> {
    let waker = Waker::default();
    let problems = s.replica().watch(waker.clone())?;
    ensure!(problems.is_empty(), "{problems:?}");
    // What is listed is watched from then on.
    s.observe()?;
    s.replica().take_hints();
    Ok(waker)
}

/// Whether a look where the hints say finds something at the path.
fn leads_to(s: &Scene<'_>, hints: &HintSet, path: &RelPath) -> Result<bool, Stop> {
    let scope = if hints.lost {
        Scope::Everything
    } else {
        Scope::Some {
            paths: hints.paths.clone(),
            trees: hints.trees.clone(),
        }
    };
    Ok(found(&s.look_at(&scope)?, path).is_some())
}

fn a_user_edit_gives_no_hint(s: &mut Scene<'_>) -> Verdict {
    let old = s.file("d/old", b"one")?;
    let gone = s.file("d/gone", b"one")?;
    let new = p("new")?;
    s.observe()?;
    let waker = watched(s)?;
    s.file("d/old", b"edited")?;
    s.user().write(&new, b"one")?;
    s.user().remove(&gone)?;
    ensure!(waker.wait(Duration::from_secs(10)), "nobody was woken");
    gather(s, &waker, |hints| {
        Ok([&old, &new, &gone]
            .map(|path| leads_to(s, hints, path))
            .into_iter()
            .all(|l| matches!(l, Ok(true))))
    })?;
    Ok(())
}

fn gather_from(s: &Scene<'_>, waker: &Waker, path: &RelPath) -> Verdict {
    gather(s, waker, |hints| leads_to(s, hints, path)).map(drop)
}

fn a_new_directory_hides_what_is_written_into_it(s: &mut Scene<'_>) -> Verdict {
    let waker = watched(s)?;
    let inside = p("new/deep/file")?;
    s.user().write(&inside, b"one")?;
    gather_from(s, &waker, &inside)?;
    s.observe()?;
    s.pass_ms(20);
    s.replica().take_hints();
    s.file("new/deep/file", b"edited")?;
    gather_from(s, &waker, &inside)
}

fn hints_come_twice(s: &mut Scene<'_>) -> Verdict {
    let waker = watched(s)?;
    let path = s.file("a", b"one")?;
    gather_from(s, &waker, &path)?;
    // Whatever was still on its way has come by now.
    for _ in 0..5 {
        s.pass_ms(50);
        s.replica().take_hints();
    }
    let again = s.replica().take_hints();
    ensure!(again.is_empty(), "{again:?}");
    Ok(())
}

fn lost_hints_are_not_mentioned(s: &mut Scene<'_>) -> Verdict {
    let waker = watched(s)?;
    s.inject(&Fault::HintsLost, true)?;
    gather(s, &waker, |hints| Ok(hints.lost))?;
    let again = s.replica().take_hints();
    ensure!(!again.lost, "it says so for ever");
    Ok(())
}
