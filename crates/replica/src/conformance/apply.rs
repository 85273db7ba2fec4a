//! Promises about carrying out actions.

use instep_core::id::ContentId;
use instep_core::plan::{Action, Code, Goal, Outcome, Precondition};
use instep_core::time::Mtime;
use instep_core::version::Kind;

use super::scene::{FOREIGN_MODE, FOREIGN_MTIME, Given, foreign_version, p};
use super::{Fault, Scene, Stop, Verdict, Want, list_promises};
use crate::content::NoSources;

list_promises! {
    Writable a_new_kind_does_not_arrive,
    Links a_new_kind_does_not_arrive_with_links,
    Writable a_file_arrives_with_another_time,
    Modes a_file_arrives_with_another_mode,
    Writable an_applied_change_echoes,
    Writable applying_again_changes_something,
    Writable + Edited an_unseen_edit_is_overwritten,
    Links + Edited an_unseen_edit_is_overwritten_with_links,
    Writable + Edited an_unseen_file_is_overwritten,
    Writable + Edited a_file_that_has_gone_comes_back,
    Modes metadata_touches_content,
    Writable a_tree_does_not_arrive_in_one_call,
    Writable a_missing_parent_stops_a_file,
    Writable a_parent_is_forgotten_by_what_the_same_batch_tells_of_it,
    Writable an_empty_parent_stays_behind,
    Writable a_parent_that_stands_for_its_contents_cannot_become_real,
    Writable a_file_cannot_give_way_to_a_directory_of_others,
    Writable a_file_in_the_way_is_removed_for_a_child,
    Writable + Edited a_directory_for_a_child_hides_that_a_file_was_deleted,
    Writable a_deleted_tree_stays_in_part,
    Writable a_directory_goes_with_its_contents,
    Writable + Edited a_directory_goes_with_an_unseen_file,
    Writable a_directory_goes_with_ignored_files,
    Writable + Edited a_record_touches_the_tree,
    Writable + Edited a_record_claims_what_is_not_there,
    Writable one_bad_action_stops_the_others,
    Writable missing_content_is_an_error,
    Writable wrong_content_arrives,
    Writable our_own_directory_is_written,
}

fn change_kinds(s: &Scene<'_>, wants: &[Want]) -> Verdict {
    for (i, before) in wants.iter().enumerate() {
        for (j, after) in wants.iter().enumerate() {
            let path = p(&format!("from-{i}-to-{j}"))?;
            s.edit(&path, *before)?;
            s.observe()?;
            let action = s.receive(&path, *after)?;
            let seen = s.seen(&path)?;
            ensure!(
                after.is(seen.as_ref()),
                "{before:?} to {after:?} shows {seen:?}"
            );
            let row = s.row(&path)?;
            ensure!(
                row.entry == action.entry && row.shown == action.shown,
                "{row:?}"
            );
            s.quiet()?;
        }
    }
    Ok(())
}

fn a_new_kind_does_not_arrive(s: &mut Scene<'_>) -> Verdict {
    change_kinds(s, &[Want::Nothing, Want::File(b"file"), Want::Dir])
}

fn a_new_kind_does_not_arrive_with_links(s: &mut Scene<'_>) -> Verdict {
    let wants = [
        Want::Nothing,
        Want::File(b"f"),
        Want::Dir,
        Want::Link(b"x"),
        Want::Link(b"y"),
    ];
    change_kinds(s, &wants)
}

fn a_file_arrives_with_another_time(s: &mut Scene<'_>) -> Verdict {
    let path = p("a")?;
    s.receive(&path, Want::File(b"new"))?;
    let mtime = s.seen(&path)?.map(|o| o.mtime());
    ensure!(mtime == Some(FOREIGN_MTIME), "{mtime:?}");
    Ok(())
}

fn a_file_arrives_with_another_mode(s: &mut Scene<'_>) -> Verdict {
    for (name, want) in [("f", Want::File(b"new")), ("d", Want::Dir)] {
        let path = p(name)?;
        s.receive(&path, want)?;
        let mode = s.seen(&path)?.map(|o| o.mode());
        ensure!(mode == Some(FOREIGN_MODE), "{path}: {mode:?}");
    }
    Ok(())
}

fn an_applied_change_echoes(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"old")?;
    s.observe()?;
    for want in [
        Want::File(b"new"),
        Want::Nothing,
        Want::File(b"newer"),
        Want::Dir,
    ] {
        let action = s.receive(&path, want)?;
        s.observe()?;
        ensure!(
            s.row(&path)?.shown == action.shown,
            "{want:?} was taken for a user's change"
        );
    }
    Ok(())
}

fn applying_again_changes_something(s: &mut Scene<'_>) -> Verdict {
    s.file("over", b"old")?;
    s.file("gone", b"old")?;
    s.observe()?;
    let actions = [
        s.incoming(&p("over")?, Want::File(b"new"))?,
        s.incoming(&p("gone")?, Want::Nothing)?,
        s.incoming(&p("made")?, Want::Dir)?,
    ];
    let first = s.apply(&actions, &[b"new"])?;
    ensure!(first == vec![Outcome::Done; 3], "{first:?}");
    let (tree, rows, trash) = (s.user().tree()?, s.rows()?, s.trash_records()?);
    let second = s.apply(&actions, &[b"new"])?;
    let fine = |o: &Outcome| matches!(o, Outcome::Done | Outcome::Superseded);
    ensure!(second.iter().all(fine), "{second:?}");
    ensure!(s.user().tree()? == tree, "the tree changed");
    ensure!(s.rows()? == rows, "the index changed");
    ensure!(s.trash_records()? == trash, "the trash changed");
    s.quiet()
}

/// Applies every kind of change over a path that its user has edited since it was observed.
fn refuse(s: &Scene<'_>, before: Want, meanwhile: Want, incoming: &[Want]) -> Verdict {
    for (i, want) in incoming.iter().enumerate() {
        let path = p(&format!("{:?}-{:?}-{i}", before.kind(), meanwhile.kind()))?;
        s.edit(&path, before)?;
        s.observe()?;
        let action = s.incoming(&path, *want)?;
        s.edit(&path, meanwhile)?;
        let row = s.row(&path)?;
        let outcome = s.apply(&[action], &[want.bytes()])?;
        ensure!(
            outcome == [Outcome::Superseded],
            "{want:?} over {meanwhile:?} gave {outcome:?}"
        );
        let seen = s.seen(&path)?;
        ensure!(
            meanwhile.is(seen.as_ref()),
            "{want:?} over {meanwhile:?} left {seen:?}"
        );
        ensure!(
            s.row(&path)?.entry == row.entry,
            "the index learned what did not happen"
        );
    }
    Ok(())
}

fn an_unseen_edit_is_overwritten(s: &mut Scene<'_>) -> Verdict {
    let incoming = [Want::File(b"theirs"), Want::Dir, Want::Nothing];
    refuse(s, Want::File(b"old"), Want::File(b"mine"), &incoming)?;
    refuse(
        s,
        Want::File(b"old"),
        Want::File(b"old, and longer"),
        &incoming,
    )?;
    refuse(s, Want::File(b"old"), Want::Dir, &incoming)?;
    refuse(s, Want::Dir, Want::File(b"mine"), &incoming)
}

fn an_unseen_edit_is_overwritten_with_links(s: &mut Scene<'_>) -> Verdict {
    let incoming = [
        Want::File(b"theirs"),
        Want::Link(b"theirs"),
        Want::Dir,
        Want::Nothing,
    ];
    refuse(s, Want::Link(b"old"), Want::Link(b"mine"), &incoming)?;
    refuse(s, Want::File(b"old"), Want::Link(b"mine"), &incoming)?;
    refuse(s, Want::Nothing, Want::Link(b"mine"), &incoming)
}

fn an_unseen_file_is_overwritten(s: &mut Scene<'_>) -> Verdict {
    let incoming = [Want::File(b"theirs"), Want::Dir, Want::Nothing];
    refuse(s, Want::Nothing, Want::File(b"mine"), &incoming)
}

fn a_file_that_has_gone_comes_back(s: &mut Scene<'_>) -> Verdict {
    let incoming = [Want::File(b"theirs"), Want::Dir];
    refuse(s, Want::File(b"old"), Want::Nothing, &incoming)
}

fn metadata_touches_content(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"bytes")?;
    s.observe()?;
    let mtime = Mtime {
        secs: 1_500_000_000,
        nanos: 7,
    };
    let mut version = s.shown(&path)?;
    (version.mode, version.mtime, version.meta_only) = (0o604, mtime, true);
    let dot = s.foreign_dot();
    let action = Action {
        goal: Goal::Metadata {
            mode: 0o604,
            mtime: Some(mtime),
        },
        entry: s.row(&path)?.entry.record(dot, version),
        shown: Some(dot),
        ..s.incoming(&path, Want::Nothing)?
    };
    s.done(&action, &[])?;
    let seen = s.seen(&path)?;
    let ok = seen
        .as_ref()
        .is_some_and(|o| o.mode() == 0o604 && o.mtime() == mtime);
    ensure!(ok && Want::File(b"bytes").is(seen.as_ref()), "{seen:?}");
    ensure!(s.trash_records()?.is_empty(), "something was displaced");
    s.quiet()
}

fn a_tree_does_not_arrive_in_one_call(s: &mut Scene<'_>) -> Verdict {
    let mut actions = vec![
        s.incoming(&p("d")?, Want::Dir)?,
        s.incoming(&p("d/e")?, Want::Dir)?,
    ];
    for i in 0..50 {
        actions.push(s.incoming(&p(&format!("d/e/{i}"))?, Want::File(b"one"))?);
    }
    let outcomes = s.apply(&actions, &[b"one"])?;
    ensure!(outcomes.iter().all(|o| *o == Outcome::Done), "{outcomes:?}");
    ensure!(
        s.user().tree()?.len() == 52,
        "{:?}",
        s.user().tree()?.keys()
    );
    s.quiet()
}

fn a_missing_parent_stops_a_file(s: &mut Scene<'_>) -> Verdict {
    let path = p("d/e/f")?;
    s.receive(&path, Want::File(b"one"))?;
    ensure!(s.user().read(&path)? == b"one", "other bytes");
    for dir in ["d", "d/e"] {
        let row = s.row(&p(dir)?)?;
        ensure!(
            row.is_derived_dir() && row.entry.is_empty(),
            "{dir} is not derived: {row:?}"
        );
    }
    s.quiet()
}

/// Nothing has to be done about a directory that was deleted: what comes below it makes it.
fn a_parent_is_forgotten_by_what_the_same_batch_tells_of_it(s: &mut Scene<'_>) -> Verdict {
    let dir = p("d")?;
    let told = Action {
        goal: Goal::Record,
        shown: None,
        ..s.incoming(&dir, Want::Nothing)?
    };
    let child = s.incoming(&p("d/f")?, Want::File(b"one"))?;
    let outcomes = s.apply(&[told.clone(), child], &[b"one"])?;
    ensure!(outcomes == vec![Outcome::Done; 2], "{outcomes:?}");
    let row = s.row(&dir)?;
    ensure!(row.is_derived_dir() && row.entry == told.entry, "{row:?}");
    s.quiet()
}

fn an_empty_parent_stays_behind(s: &mut Scene<'_>) -> Verdict {
    let (one, two) = (p("d/e/one")?, p("d/e/two")?);
    s.receive(&one, Want::File(b"one"))?;
    s.receive(&two, Want::File(b"two"))?;
    s.receive(&one, Want::Nothing)?;
    ensure!(s.seen(&two)?.is_some(), "the other file went too");
    s.receive(&two, Want::Nothing)?;
    ensure!(
        s.user().tree()?.is_empty(),
        "left behind: {:?}",
        s.user().tree()?.keys()
    );
    ensure!(
        s.row(&p("d")?)?.print.is_none(),
        "the index still has the directory"
    );
    s.quiet()
}

fn a_parent_that_stands_for_its_contents_cannot_become_real(s: &mut Scene<'_>) -> Verdict {
    let dir = p("d")?;
    s.receive(&p("d/f")?, Want::File(b"one"))?;
    let mut action = s.incoming(&dir, Want::Dir)?;
    action.goal = Goal::Metadata {
        mode: FOREIGN_MODE,
        mtime: None,
    };
    s.done(&action, &[])?;
    let row = s.row(&dir)?;
    ensure!(
        row.present().is_some_and(|v| v.kind == Kind::Dir),
        "{row:?}"
    );
    s.receive(&p("d/f")?, Want::Nothing)?;
    ensure!(
        Want::Dir.is(s.seen(&dir)?.as_ref()),
        "it went with its last file"
    );
    s.quiet()
}

/// A directory without a version of its own takes the place of a file that lost its name to it.
fn a_file_cannot_give_way_to_a_directory_of_others(s: &mut Scene<'_>) -> Verdict {
    let dir = s.file("d", b"mine")?;
    s.observe()?;
    let entry = s.row(&dir)?.entry;
    let action = Action {
        entry: entry.clone(),
        shown: None,
        ..s.incoming(&dir, Want::Dir)?
    };
    let child = s.incoming(&p("d/f")?, Want::File(b"theirs"))?;
    let outcomes = s.apply(&[action, child], &[b"theirs"])?;
    ensure!(outcomes == vec![Outcome::Done; 2], "{outcomes:?}");
    let row = s.row(&dir)?;
    ensure!(row.is_derived_dir() && row.entry == entry, "{row:?}");
    s.content(&dir, b"mine")?;
    s.quiet()
}

fn a_file_in_the_way_is_removed_for_a_child(s: &mut Scene<'_>) -> Verdict {
    let file = s.file("d", b"mine")?;
    s.observe()?;
    let action = s.incoming(&p("d/f")?, Want::File(b"one"))?;
    let outcome = s.apply(&[action], &[b"one"])?;
    ensure!(outcome != [Outcome::Done], "{outcome:?}");
    ensure!(s.user().read(&file)? == b"mine", "the file changed");
    s.quiet()
}

/// Else the file would count as kept although its user gave it up.
fn a_directory_for_a_child_hides_that_a_file_was_deleted(s: &mut Scene<'_>) -> Verdict {
    let file = s.file("d", b"mine")?;
    s.observe()?;
    s.edit(&file, Want::Nothing)?;
    let child = s.incoming(&p("d/f")?, Want::File(b"theirs"))?;
    let outcomes = s.apply(core::slice::from_ref(&child), &[b"theirs"])?;
    ensure!(outcomes == [Outcome::Superseded], "{outcomes:?}");
    s.observe()?;
    let entry = s.row(&file)?.entry;
    ensure!(
        matches!(entry.siblings(), [(_, v)] if v.is_tomb()),
        "{entry:?}"
    );
    s.done(&child, &[b"theirs"])?;
    s.quiet()
}

fn a_deleted_tree_stays_in_part(s: &mut Scene<'_>) -> Verdict {
    s.file("d/a", b"one")?;
    s.file("d/e/b", b"two")?;
    s.observe()?;
    let mut actions = Vec::new();
    for path in ["d/e/b", "d/e", "d/a", "d"] {
        actions.push(s.incoming(&p(path)?, Want::Nothing)?);
    }
    let outcomes = s.apply(&actions, &[])?;
    ensure!(outcomes == vec![Outcome::Done; 4], "{outcomes:?}");
    ensure!(
        s.user().tree()?.is_empty(),
        "left behind: {:?}",
        s.user().tree()?.keys()
    );
    s.content(&p("d/a")?, b"one")?;
    s.content(&p("d/e/b")?, b"two")?;
    s.quiet()
}

fn a_directory_goes_with_its_contents(s: &mut Scene<'_>) -> Verdict {
    let (dir, file) = (p("d")?, s.file("d/a", b"mine")?);
    s.observe()?;
    for want in [Want::Nothing, Want::File(b"theirs")] {
        let outcome = s.apply(&[s.incoming(&dir, want)?], &[want.bytes()])?;
        ensure!(outcome == [Outcome::Busy], "{want:?} gave {outcome:?}");
        ensure!(s.user().read(&file)? == b"mine", "what was inside changed");
    }
    s.quiet()
}

fn a_directory_goes_with_an_unseen_file(s: &mut Scene<'_>) -> Verdict {
    let dir = p("d")?;
    s.edit(&dir, Want::Dir)?;
    s.observe()?;
    let action = s.incoming(&dir, Want::Nothing)?;
    let file = s.file("d/unseen", b"mine")?;
    let outcome = s.apply(&[action], &[])?;
    ensure!(outcome != [Outcome::Done], "{outcome:?}");
    ensure!(s.user().read(&file)? == b"mine", "it is gone");
    Ok(())
}

fn a_directory_goes_with_ignored_files(s: &mut Scene<'_>) -> Verdict {
    let (dir, ignored) = (p("d")?, p("d/ignored")?);
    s.inject(&Fault::Ignored(ignored.clone()), true)?;
    s.edit(&dir, Want::Dir)?;
    s.file("d/ignored", b"mine")?;
    s.observe()?;
    s.quiet()?;
    let outcome = s.apply(&[s.incoming(&dir, Want::Nothing)?], &[])?;
    let husk = matches!(&outcome[..], [Outcome::Blocked(p)] if p.code == Code::Husk);
    ensure!(husk, "{outcome:?}");
    ensure!(
        s.user().read(&ignored)? == b"mine",
        "an ignored file changed"
    );
    Ok(())
}

fn a_record_touches_the_tree(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"same")?;
    s.observe()?;
    let tree = s.user().tree()?;
    let theirs = foreign_version(Want::File(b"same"), None);
    let dot = s.foreign_dot();
    let entry = s.row(&path)?.entry.record(dot, theirs);
    s.done(&s.telling(&path, entry.clone(), Some(dot))?, &[])?;
    let row = s.row(&path)?;
    ensure!(row.entry == entry && row.shown == Some(dot), "{row:?}");
    ensure!(s.user().tree()? == tree, "the tree changed");
    s.quiet()
}

fn a_record_claims_what_is_not_there(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"old")?;
    s.observe()?;
    let row = s.row(&path)?;
    let dot = s.foreign_dot();
    let entry = row
        .entry
        .record(dot, foreign_version(Want::File(b"old"), None));
    let action = s.telling(&path, entry, Some(dot))?;
    s.file("a", b"edited")?;
    let outcome = s.apply(&[action], &[])?;
    ensure!(outcome == [Outcome::Superseded], "{outcome:?}");
    ensure!(
        s.row(&path)?.entry == row.entry,
        "it was recorded all the same"
    );
    let look = s.observe()?;
    ensure!(
        look.findings.len() == 1,
        "the edit is no longer found: {look:?}"
    );
    Ok(())
}

fn one_bad_action_stops_the_others(s: &mut Scene<'_>) -> Verdict {
    let actions = [
        s.incoming(&p("a")?, Want::File(b"one"))?,
        s.incoming(&p("b")?, Want::File(b"nobody has this"))?,
        s.incoming(&p("c")?, Want::File(b"one"))?,
    ];
    let outcomes = s.apply(&actions, &[b"one"])?;
    ensure!(
        outcomes[0] == Outcome::Done && outcomes[2] == Outcome::Done,
        "{outcomes:?}"
    );
    ensure!(outcomes[1] != Outcome::Done, "{outcomes:?}");
    ensure!(s.user().tree()?.len() == 2, "{:?}", s.user().tree()?.keys());
    s.quiet()
}

fn missing_content_is_an_error(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"old")?;
    s.observe()?;
    let action = s.incoming(&path, Want::File(b"nobody has this"))?;
    match &s.replica().apply(&[action], &NoSources)?[..] {
        [Outcome::Blocked(problem)] if problem.code == Code::ContentMissing => {}
        other => return Err(Stop::Broken(format!("{other:?}"))),
    }
    ensure!(s.user().read(&path)? == b"old", "the old content is gone");
    s.quiet()
}

fn wrong_content_arrives(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"old")?;
    s.observe()?;
    let action = s.incoming(&path, Want::File(b"right"))?;
    let Goal::File { content, .. } = action.goal else {
        return Ok(());
    };
    for bytes in [&b"wrong"[..], b"", b"right and more"] {
        let liar = Given([(content, bytes.to_vec())].into());
        let outcome = s.replica().apply(std::slice::from_ref(&action), &liar)?;
        ensure!(
            outcome != [Outcome::Done],
            "{bytes:?} passed for the right content"
        );
        ensure!(s.user().read(&path)? == b"old", "{bytes:?} arrived");
    }
    s.quiet()
}

fn our_own_directory_is_written(s: &mut Scene<'_>) -> Verdict {
    for path in [".instep", ".instep/x", ".instep/staging/x"] {
        let action = Action {
            before: Precondition::Absent,
            ..s.incoming(&p(path)?, Want::File(b"evil"))?
        };
        let outcome = s.apply(&[action], &[b"evil"])?;
        ensure!(outcome != [Outcome::Done], "{path} was written");
        ensure!(
            s.replica().row(&p(path)?)?.is_none(),
            "{path} is in the index"
        );
        let none = s.replica().open(&p(path)?, ContentId::NONE)?;
        ensure!(none.is_none(), "{path} can be opened");
    }
    s.quiet()
}
