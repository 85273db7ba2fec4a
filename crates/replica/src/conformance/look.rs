//! Promises about looking.

use std::collections::BTreeSet;

use instep_chunk::content_id;
use instep_core::path::{Name, RelPath};
use instep_core::version::Kind;

use super::scene::{found, p};
use super::{Scene, Stop, Verdict, Want, list_promises};
use crate::look::{Found, Scope};

list_promises! {
    Nothing an_empty_root_shows_changes,
    Edited a_recorded_change_is_found_again,
    Nothing a_look_changes_something,
    Edited findings_are_out_of_order,
    Edited a_change_of_the_same_length_is_missed,
    Edited a_look_at_one_path_finds_another,
    Edited a_look_at_one_path_misses_it,
    Edited contents_of_a_new_directory_are_missed,
    Edited a_deleted_directory_leaves_its_contents_behind,
    Edited an_odd_name_is_missed,
    Nothing a_deep_path_is_missed,
    Nothing a_file_counts_wrongly,
    Modes + Edited a_chmod_is_missed,
    Links + Edited a_link_is_followed,
    Edited a_renamed_file_is_taken_for_another,
    Edited a_renamed_directory_is_taken_for_another,
    Edited an_edited_file_counts_as_moved,
}

fn an_empty_root_shows_changes(s: &mut Scene<'_>) -> Verdict {
    s.quiet()
}

fn a_recorded_change_is_found_again(s: &mut Scene<'_>) -> Verdict {
    s.file("a.txt", b"one")?;
    s.file("empty", b"")?;
    s.file("d/e/f.txt", b"two")?;
    s.user().mkdir(&p("d/hollow")?)?;
    let look = s.observe()?;
    ensure!(
        look.findings.len() == 6,
        "six objects gave {:?}",
        look.findings
    );
    s.quiet()
}

fn a_look_changes_something(s: &mut Scene<'_>) -> Verdict {
    s.file("seen", b"one")?;
    s.observe()?;
    s.file("new", b"two")?;
    s.file("seen", b"changed")?;
    let (tree, rows) = (s.user().tree()?, s.rows()?);
    let first = s.look()?;
    let second = s.look()?;
    ensure!(
        first.findings == second.findings,
        "two looks differ: {first:?} and {second:?}"
    );
    ensure!(s.user().tree()? == tree, "a look changed the tree");
    ensure!(s.rows()? == rows, "a look changed the index");
    Ok(())
}

fn findings_are_out_of_order(s: &mut Scene<'_>) -> Verdict {
    for path in ["b", "a/z", "a b", "a.b", "a/b/c"] {
        s.file(path, b"x")?;
    }
    let look = s.look()?;
    ensure!(
        look.findings.is_sorted_by(|a, b| a.path < b.path),
        "not by path: {:?}",
        look.findings
    );
    Ok(())
}

fn a_change_of_the_same_length_is_missed(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("a", b"one")?;
    s.observe()?;
    s.file("a", b"two")?;
    match found(&s.look()?, &path) {
        Some(Found::Present { content, .. }) if *content == content_id(b"two") => Ok(()),
        other => Err(Stop::Broken(format!("found {other:?}"))),
    }
}

fn some(paths: &[&RelPath], trees: &[&RelPath]) -> Scope {
    let set = |of: &[&RelPath]| of.iter().map(|p| (*p).clone()).collect::<BTreeSet<_>>();
    Scope::Some {
        paths: set(paths),
        trees: set(trees),
    }
}

fn a_look_at_one_path_finds_another(s: &mut Scene<'_>) -> Verdict {
    let here = s.file("here", b"one")?;
    let there = s.file("there", b"one")?;
    let look = s.look_at(&some(&[&here], &[]))?;
    ensure!(found(&look, &here).is_some(), "the path itself was missed");
    ensure!(
        found(&look, &there).is_none(),
        "another path was found: {:?}",
        look.findings
    );
    Ok(())
}

fn a_look_at_one_path_misses_it(s: &mut Scene<'_>) -> Verdict {
    let kept = s.file("d/kept", b"one")?;
    let gone = s.file("d/gone", b"one")?;
    s.observe()?;
    s.file("d/kept", b"changed")?;
    s.user().remove(&gone)?;
    let look = s.look_at(&some(&[&kept, &gone], &[]))?;
    let (kept, gone) = (found(&look, &kept), found(&look, &gone));
    ensure!(
        matches!(kept, Some(Found::Present { .. })),
        "an edit gave {kept:?}"
    );
    ensure!(
        gone == Some(&Found::Absent { was: Kind::File }),
        "a deletion gave {gone:?}"
    );
    Ok(())
}

fn contents_of_a_new_directory_are_missed(s: &mut Scene<'_>) -> Verdict {
    let path = s.file("new/deep/file", b"one")?;
    let look = s.look_at(&some(&[], &[&p("new")?]))?;
    for path in [&p("new")?, &p("new/deep")?, &path] {
        ensure!(
            found(&look, path).is_some(),
            "{path} was missed: {:?}",
            look.findings
        );
    }
    Ok(())
}

fn a_deleted_directory_leaves_its_contents_behind(s: &mut Scene<'_>) -> Verdict {
    let file = s.file("d/e/f", b"one")?;
    s.observe()?;
    s.user().remove(&p("d")?)?;
    let look = s.look_at(&some(&[], &[&p("d")?]))?;
    for (path, was) in [
        (&p("d")?, Kind::Dir),
        (&p("d/e")?, Kind::Dir),
        (&file, Kind::File),
    ] {
        let got = found(&look, path);
        ensure!(got == Some(&Found::Absent { was }), "{path} gave {got:?}");
    }
    Ok(())
}

fn an_odd_name_is_missed(s: &mut Scene<'_>) -> Verdict {
    let names: [&[u8]; 8] = [
        b" ",
        b"new\nline",
        b"\xff\xfe not utf-8",
        b"-rf",
        b"\xe2\x80\xae.txt",
        b"back\\slash",
        b"...",
        &[b'n'; 255],
    ];
    for name in names {
        let path = RelPath::root().join(Name::new(name)?);
        s.user().write(&path, name)?;
    }
    let look = s.observe()?;
    ensure!(
        look.findings.len() == names.len(),
        "found {:?}",
        look.findings
    );
    for name in names {
        let path = RelPath::root().join(Name::new(name)?);
        ensure!(
            s.shown(&path)?.content == content_id(name),
            "{path} has other content"
        );
    }
    s.quiet()
}

/// Beyond 4096 bytes, where a path string no longer opens anything.
fn a_deep_path_is_missed(s: &mut Scene<'_>) -> Verdict {
    let path = p(&vec!["d".repeat(200); 40].join("/"))?;
    match s.user().write(&path, b"down here") {
        Err(e) if e.kind() == std::io::ErrorKind::InvalidFilename => {
            return Err(Stop::Inapplicable(
                "the harness cannot write so deep".into(),
            ));
        }
        other => other?,
    }
    let look = s.observe()?;
    ensure!(look.problems.is_empty(), "{:?}", look.problems);
    ensure!(
        s.shown(&path)?.content == content_id(b"down here"),
        "other content"
    );
    s.quiet()
}

fn a_file_counts_wrongly(s: &mut Scene<'_>) -> Verdict {
    s.file("a", b"12345")?;
    s.file("d/b", b"678")?;
    for _ in 0..2 {
        let totals = s.observe()?.totals;
        let got = (totals.files, totals.dirs, totals.links, totals.bytes);
        ensure!(
            got == (2, 1, 0, 8),
            "files, directories, links, bytes: {got:?}"
        );
    }
    Ok(())
}

fn a_chmod_is_missed(s: &mut Scene<'_>) -> Verdict {
    let file = s.file("d/f", b"one")?;
    let dir = p("d")?;
    s.observe()?;
    s.pass_ms(20);
    s.user().chmod(&file, 0o640)?;
    s.user().chmod(&dir, 0o700)?;
    let look = s.look()?;
    for (path, want) in [(&file, 0o640), (&dir, 0o700)] {
        let got = found(&look, path);
        let ok = matches!(got, Some(Found::Present { mode, .. }) if *mode == want);
        ensure!(ok, "{path} gave {got:?}");
    }
    Ok(())
}

fn a_link_is_followed(s: &mut Scene<'_>) -> Verdict {
    s.file("d/inside", b"one")?;
    let link = p("link")?;
    s.edit(&link, Want::Link(b"d"))?;
    let look = s.look()?;
    let got = found(&look, &link);
    let ok =
        matches!(got, Some(Found::Present { kind: Kind::Link, target, .. }) if **target == *b"d");
    ensure!(ok, "the link gave {got:?}");
    ensure!(
        found(&look, &p("link/inside")?).is_none(),
        "the look went through the link"
    );
    s.observe()?;
    s.quiet()
}

fn a_renamed_file_is_taken_for_another(s: &mut Scene<'_>) -> Verdict {
    let from = s.file("from", b"the same all the time")?;
    let to = p("to")?;
    s.observe()?;
    s.user().rename(&from, &to)?;
    let look = s.look()?;
    ensure!(
        found(&look, &from) == Some(&Found::Absent { was: Kind::File }),
        "{:?}",
        look.findings
    );
    match found(&look, &to) {
        Some(Found::Present {
            moved_from: Some(was),
            ..
        }) if *was == from => Ok(()),
        other => Err(Stop::Broken(format!("found {other:?}"))),
    }
}

fn a_renamed_directory_is_taken_for_another(s: &mut Scene<'_>) -> Verdict {
    s.file("from/a", b"one")?;
    s.file("from/sub/b", b"two")?;
    let (from, to) = (p("from")?, p("to")?);
    s.observe()?;
    s.user().rename(&from, &to)?;
    let look = s.look()?;
    ensure!(look.moves.len() == 1, "one rename gave {:?}", look.moves);
    let m = &look.moves[0];
    ensure!(m.from == from && m.to == to && m.whole, "got {m:?}");
    Ok(())
}

fn an_edited_file_counts_as_moved(s: &mut Scene<'_>) -> Verdict {
    let from = s.file("from", b"before")?;
    let to = p("to")?;
    s.observe()?;
    s.user().rename(&from, &to)?;
    s.edit(&to, Want::File(b"other bytes"))?;
    match found(&s.look()?, &to) {
        Some(Found::Present {
            moved_from: None, ..
        }) => Ok(()),
        other => Err(Stop::Broken(format!("found {other:?}"))),
    }
}
