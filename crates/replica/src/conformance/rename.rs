//! Promises about moving a whole tree by one rename.

use instep_core::path::RelPath;
use instep_core::plan::{Action, Goal, Outcome};
use instep_core::row::Row;
use instep_core::version::{Kind, Version};

use super::scene::{FOREIGN_MTIME, p};
use super::{Fault, Scene, Stop, Verdict, Want, list_promises};

list_promises! {
    Writable a_rename_leaves_something_behind,
    Writable a_rename_overwrites,
    Writable + Edited a_rename_moves_an_unseen_edit,
    Writable a_rename_of_nothing_succeeds,
    Writable an_adopted_move_is_found_again,
    Writable + Edited an_adopted_move_hides_a_later_edit,
    Writable + Edited an_adopted_move_hides_an_earlier_deletion,
    Writable a_move_that_is_adopted_twice_is_forgotten,
    Writable ignored_files_stay_behind_in_a_move,
    Writable a_file_that_moved_is_at_both_paths,
    Writable + Edited a_file_moves_with_an_unseen_edit,
}

fn make(s: &Scene<'_>) -> Result<(RelPath, RelPath), Stop> {
    s.file("from/a", b"one")?;
    s.file("from/sub/b", b"two")?;
    s.user().mkdir(&p("from/hollow")?)?;
    s.observe()?;
    Ok((p("from")?, p("to")?))
}

fn a_rename_leaves_something_behind(s: &mut Scene<'_>) -> Verdict {
    let (from, to) = make(s)?;
    let before = s.user().tree()?;
    let outcome = s.replica().rename(&from, &to)?;
    ensure!(outcome == Outcome::Done, "{outcome:?}");
    let moved = before
        .into_iter()
        .filter_map(|(path, object)| Some((path.rebase(&from, &to)?, object)));
    let (want, seen) = (moved.collect(), s.user().tree()?);
    ensure!(seen == want, "{seen:?}");
    Ok(())
}

fn a_rename_overwrites(s: &mut Scene<'_>) -> Verdict {
    let (from, to) = make(s)?;
    for want in [Want::File(b"mine"), Want::Dir] {
        s.edit(&to, want)?;
        let before = s.user().tree()?;
        let outcome = s.replica().rename(&from, &to)?;
        ensure!(outcome != Outcome::Done, "over {want:?}: {outcome:?}");
        ensure!(
            s.user().tree()? == before,
            "over {want:?}: the tree changed"
        );
    }
    Ok(())
}

fn a_rename_moves_an_unseen_edit(s: &mut Scene<'_>) -> Verdict {
    let from = s.file("from", b"old")?;
    s.observe()?;
    s.file("from", b"edited")?;
    let outcome = s.replica().rename(&from, &p("to")?)?;
    ensure!(outcome == Outcome::Superseded, "{outcome:?}");
    ensure!(s.user().read(&from)? == b"edited", "the edit is gone");
    Ok(())
}

fn a_rename_of_nothing_succeeds(s: &mut Scene<'_>) -> Verdict {
    let (from, to) = make(s)?;
    s.edit(&from, Want::Nothing)?;
    let outcome = s.replica().rename(&from, &to)?;
    ensure!(outcome == Outcome::Superseded, "{outcome:?}");
    Ok(())
}

/// What the one who moved it recorded: tombstones at the old paths, the same versions at the new ones.
fn movers_rows(s: &Scene<'_>, from: &RelPath, to: &RelPath) -> Result<Vec<(RelPath, Row)>, Stop> {
    let mut out = Vec::new();
    for (path, row) in s.rows()? {
        let (Some(new), Some(was)) = (path.rebase(from, to), row.on_disk()) else {
            continue;
        };
        let tomb = Version {
            kind: Kind::Tomb,
            size: 0,
            mode: 0,
            target: Box::default(),
            moved: Some(new.clone()),
            ..was.clone()
        };
        let here = Version {
            moved: Some(path.clone()),
            ..was.clone()
        };
        for (path, version) in [(path, tomb), (new, here)] {
            let dot = s.foreign_dot();
            let entry = s.row(&path)?.entry.record(dot, version);
            let print = row
                .print
                .filter(|_| entry.get(dot).is_some_and(|v| !v.is_tomb()));
            out.push((
                path,
                Row {
                    entry,
                    shown: Some(dot),
                    print,
                    seen: None,
                    held: None,
                    epoch: 1,
                },
            ));
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}

fn move_it(s: &Scene<'_>, from: &RelPath, to: &RelPath) -> Result<Vec<(RelPath, Row)>, Stop> {
    let rows = movers_rows(s, from, to)?;
    let outcome = s.replica().rename(from, to)?;
    ensure!(outcome == Outcome::Done, "{outcome:?}");
    s.replica().adopt_move(from, to, &rows)?;
    Ok(rows)
}

fn an_adopted_move_is_found_again(s: &mut Scene<'_>) -> Verdict {
    let (from, to) = make(s)?;
    let rows = move_it(s, &from, &to)?;
    s.quiet()?;
    for (path, theirs) in rows {
        let ours = s.row(&path)?;
        ensure!(
            ours.entry == theirs.entry && ours.shown == theirs.shown,
            "{path}: {ours:?}"
        );
    }
    s.content(&p("to/sub/b")?, b"two")
}

fn an_adopted_move_hides_a_later_edit(s: &mut Scene<'_>) -> Verdict {
    let (from, to) = make(s)?;
    move_it(s, &from, &to)?;
    s.file("to/a", b"edited")?;
    s.file("from", b"something new")?;
    let look = s.look()?;
    let paths: Vec<_> = look.findings.iter().map(|f| f.path.to_string()).collect();
    ensure!(paths == ["from", "to/a"], "{paths:?}");
    Ok(())
}

/// The user emptied a directory here while it was moved elsewhere, and nobody had noticed yet.
fn an_adopted_move_hides_an_earlier_deletion(s: &mut Scene<'_>) -> Verdict {
    let (from, to) = make(s)?;
    s.edit(&p("from/sub/b")?, Want::Nothing)?;
    let rows = movers_rows(s, &from, &to)?;
    // Whoever looks that closely may also refuse.
    if s.replica().rename(&from, &to)? != Outcome::Done {
        return Ok(());
    }
    s.replica().adopt_move(&from, &to, &rows)?;
    s.observe()?;
    let row = s.row(&p("to/sub/b")?)?;
    ensure!(row.present().is_none(), "it is still there: {row:?}");
    Ok(())
}

/// An answer was lost, and it is told again.
fn a_move_that_is_adopted_twice_is_forgotten(s: &mut Scene<'_>) -> Verdict {
    let (from, to) = make(s)?;
    let rows = movers_rows(s, &from, &to)?;
    let outcome = s.replica().rename(&from, &to)?;
    ensure!(outcome == Outcome::Done, "{outcome:?}");
    s.replica().adopt_move(&from, &to, &rows)?;
    s.replica().adopt_move(&from, &to, &rows)?;
    for (path, theirs) in &rows {
        let row = s.row(path)?;
        ensure!(
            row.shown == theirs.shown && row.print.is_some() == path.is_within(&to),
            "{path}: {row:?}"
        );
    }
    s.edit(&p("to/sub/b")?, Want::Nothing)?;
    s.observe()?;
    let row = s.row(&p("to/sub/b")?)?;
    ensure!(
        row.on_disk().is_some_and(Version::is_tomb),
        "a deletion was not noticed: {row:?}"
    );
    s.quiet()
}

fn ignored_files_stay_behind_in_a_move(s: &mut Scene<'_>) -> Verdict {
    let ignored = p("from/ignored")?;
    s.inject(&Fault::Ignored(ignored.clone()), true)?;
    s.user().write(&ignored, b"mine")?;
    let (from, to) = make(s)?;
    let outcome = s.replica().rename(&from, &to)?;
    ensure!(outcome == Outcome::Done, "{outcome:?}");
    ensure!(s.user().read(&p("to/ignored")?)? == b"mine", "it is gone");
    Ok(())
}

/// What an engine plans for one file that another renamed: the new path first, then the old one.
fn one_file(s: &Scene<'_>) -> Result<(RelPath, RelPath, [Action; 2]), Stop> {
    let from = s.file("from", b"the same all the time")?;
    let to = p("d/to")?;
    s.observe()?;
    let arrives = s.incoming(&to, Want::File(b"the same all the time"))?;
    let leaves = s.incoming(&from, Want::Nothing)?;
    let moves = Action {
        goal: Goal::Rename { from: from.clone() },
        ..arrives
    };
    Ok((
        from,
        to,
        [
            moves,
            Action {
                goal: Goal::Record,
                ..leaves
            },
        ],
    ))
}

fn a_file_that_moved_is_at_both_paths(s: &mut Scene<'_>) -> Verdict {
    let (from, to, actions) = one_file(s)?;
    let outcomes = s.apply(&actions, &[])?;
    ensure!(outcomes == vec![Outcome::Done; 2], "{outcomes:?}");
    ensure!(s.seen(&from)?.is_none(), "it is still at the old path");
    let seen = s.seen(&to)?;
    let right = Want::File(b"the same all the time").is(seen.as_ref());
    ensure!(
        right && seen.is_some_and(|o| o.mtime() == FOREIGN_MTIME),
        "it arrived as another"
    );
    for (path, action) in [(&to, &actions[0]), (&from, &actions[1])] {
        let row = s.row(path)?;
        ensure!(
            row.shown == action.shown && row.entry == action.entry,
            "{path}: {row:?}"
        );
    }
    s.quiet()
}

fn a_file_moves_with_an_unseen_edit(s: &mut Scene<'_>) -> Verdict {
    let (from, to, actions) = one_file(s)?;
    s.file("from", b"edited meanwhile")?;
    let outcomes = s.apply(&actions, &[])?;
    ensure!(outcomes == vec![Outcome::Superseded; 2], "{outcomes:?}");
    ensure!(
        s.user().read(&from)? == b"edited meanwhile",
        "the edit is gone"
    );
    ensure!(s.seen(&to)?.is_none(), "something arrived");
    Ok(())
}
