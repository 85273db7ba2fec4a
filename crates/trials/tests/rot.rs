//! F10: a byte changes on the disk below a file system that does not notice, and the program does.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use instep_testkit::cli::Cli;
use instep_testkit::needs::{Need, met};
use instep_testkit::scratch::Scratch;
use instep_trials::image::{Image, Kind};

const TOKEN: &str = "a token that is nowhere else on this disk";

/// Flips a bit of the token wherever the image has it; how often that was.
fn rot(image: &Path) -> usize {
    let bytes = fs::read(image).unwrap();
    let file = fs::File::options().write(true).open(image).unwrap();
    let mut found = 0;
    for at in places(&bytes, TOKEN.as_bytes()) {
        file.write_all_at(&[bytes[at + 2] ^ 0x10], at as u64 + 2)
            .unwrap();
        found += 1;
    }
    found
}

/// Where a text begins.
fn places(bytes: &[u8], text: &[u8]) -> Vec<usize> {
    let first = text[0];
    let starts = bytes.iter().enumerate().filter(|(_, b)| **b == first);
    starts
        .map(|(at, _)| at)
        .filter(|at| bytes[*at..].starts_with(text))
        .collect()
}

/// A folder `a`, and `b` on a disk of its own whose copy of `x` has rotted.
fn rotten(kind: Kind) -> (Scratch, Image, Cli) {
    let scratch = Scratch::new().unwrap();
    let mut image = Image::new(scratch.path(), "disk", kind, 0).unwrap();
    let cli = Cli::at(env!("CARGO_BIN_EXE_instep-steps")).unwrap();
    let runtime = cli.home().join("run");
    fs::set_permissions(runtime, fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(cli.home().join("a")).unwrap();
    // Longer than what a file system keeps beside the names.
    let text = format!("{TOKEN}{}", "x".repeat(10_000));
    fs::write(cli.home().join("a/x"), &text).unwrap();
    fs::write(cli.home().join("a/y"), "another").unwrap();
    std::os::unix::fs::symlink(image.at(), cli.home().join("disk")).unwrap();
    fs::create_dir(image.at().join("b")).unwrap();
    cli.run(&["sync", "--once", "a", "disk/b"]).expect(0);
    image.unmount(false).unwrap();
    assert!(rot(image.file()) > 0, "{kind:?}");
    image.mount().unwrap();
    (scratch, image, cli)
}

#[test]
fn rot_below_the_file_system_is_passed_on_or_replaced() {
    let name = "rot::rot_below_the_file_system_is_passed_on_or_replaced";
    if !met(name, &[Need::Loop]) {
        return;
    }
    for kind in [Kind::Ext4, Kind::Xfs] {
        let (_scratch, image, cli) = rotten(kind);
        let here = image.at().join("b/x");
        let good = fs::read(cli.home().join("a/x")).unwrap();
        let bad = fs::read(&here).unwrap();
        assert_ne!(bad, good, "{kind:?}");
        // Nobody wrote it, so no session passes it on; one that reads it lists it.
        cli.run(&["sync", "--once", "a", "disk/b"]).expect(0);
        assert_eq!(fs::read(cli.home().join("a/x")).unwrap(), good);
        let out = cli.run(&["verify", "disk/b"]).expect(11);
        assert!(out.stdout.contains("good copy on A"), "{kind:?}\n{out}");
        // A touch makes every look read it; its bytes are still nobody's change.
        let file = fs::File::open(&here).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .unwrap();
        fs::write(cli.home().join("a/x"), "newer").unwrap();
        cli.run(&["sync", "--once", "a", "disk/b"]).expect(11);
        assert_eq!(fs::read(&here).unwrap(), bad, "{kind:?}");
        fs::write(cli.home().join("a/x"), &good).unwrap();
        cli.run(&["verify", "--repair", "disk/b"]).expect(0);
        assert_eq!(fs::read(&here).unwrap(), good, "{kind:?}");
        cli.run(&["sync", "--once", "a", "disk/b"]).expect(0);
        cli.run(&["verify", "a", "disk/b"]).expect(0);
    }
}

#[test]
fn a_file_system_that_notices_rot_is_taken_for_sound() {
    let name = "rot::a_file_system_that_notices_rot_is_taken_for_sound";
    if !met(name, &[Need::Loop]) {
        return;
    }
    let (_scratch, _image, cli) = rotten(Kind::Btrfs);
    let out = cli.run(&["verify", "disk/b"]).expect(3);
    assert!(
        out.stdout.contains("cannot be read; good copy on A"),
        "{out}"
    );
}
