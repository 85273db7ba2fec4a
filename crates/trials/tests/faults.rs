//! Disks that fail: each fault of the catalogue with what has to happen, on real file systems and on one with a script.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use instep_testkit::compare::{Aspects, compare_in};
use instep_testkit::needs::Need;
use instep_testkit::scratch::Scratch;
use instep_trials::fuse::Mounted;
use instep_trials::fuse::memory::{Fault, Memory, Nature};
use instep_trials::fuse::wire::Op;
use instep_trials::image::{Image, Kind, run};
use instep_trials::namespace::alone;
use instep_trials::program::{Done, Live, Program, until};
use rustix::io::Errno;
use rustix::process::Signal;

const EXE: &str = env!("CARGO_BIN_EXE_instep-steps");
/// The program did what it could, and some paths have a problem: any, or too little room.
const SOME_FAILED: [i32; 2] = [3, 13];
const ALWAYS: u32 = u32::MAX;
const PATIENCE: Duration = Duration::from_secs(40);

/// Three roots; the one in the middle is on the disk that fails.
struct Stage {
    /// Answers again before anybody is killed: who waits for a disk cannot die.
    memory: Option<Arc<Memory>>,
    // First: what uses the disks goes before them.
    live: Option<Live>,
    program: Program,
    roots: [PathBuf; 3],
    scratch: Scratch,
}

impl Stage {
    /// With a few files everywhere, settled.
    fn new(scratch: Scratch, b: &Path) -> Self {
        let at = scratch.path();
        let program = Program::new(&at.join("home"), &at.join("run")).unwrap();
        let roots = [at.join("a"), b.join("root"), at.join("c")];
        for root in &roots {
            fs::create_dir_all(root).unwrap();
        }
        let stage = Self {
            memory: None,
            live: None,
            program,
            roots,
            scratch,
        };
        for i in 0..8 {
            stage.write(0, &format!("d/f{i}"), &format!("file {i}"));
        }
        for name in ["one", "two"] {
            stage.write(0, name, &format!("first content of {name}"));
        }
        stage.equal_after_a_pass();
        stage
    }

    fn write(&self, root: usize, path: &str, text: &str) {
        let file = self.roots[root].join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn read(&self, root: usize, path: &str) -> Option<String> {
        fs::read_to_string(self.roots[root].join(path)).ok()
    }

    fn args<'a>(&'a self, words: &'a [&'a str]) -> Vec<&'a OsStr> {
        let roots = self.roots.iter().map(|r| r.as_os_str());
        words.iter().map(OsStr::new).chain(roots).collect()
    }

    fn pass(&self) -> Done {
        self.program.call(&self.args(&["sync", "--once"])).unwrap()
    }

    /// A pass that leaves something undone, and says so of this path, with a code.
    #[track_caller]
    fn pass_with_a_problem(&self, path: &str) {
        let done = self.pass();
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(SOME_FAILED.contains(&done.code), "{said}");
        let told = said.lines().any(|l| l.contains(path) && l.contains("(E"));
        assert!(told, "nothing about {path}: {said}");
    }

    fn differences(&self, roots: &[usize]) -> Vec<String> {
        let roots: Vec<&Path> = roots.iter().map(|r| self.roots[*r].as_path()).collect();
        let aspects = Aspects {
            modes: true,
            mtimes: false,
        };
        let found = compare_in(&roots, aspects);
        found.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn equal_after_a_pass(&self) {
        let done = self.pass();
        assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
        assert_eq!(self.differences(&[0, 1, 2]), [""; 0]);
    }

    #[track_caller]
    fn has_all_files(&self, root: usize) {
        for i in 0..8 {
            let text = self.read(root, &format!("d/f{i}"));
            assert_eq!(text, Some(format!("file {i}")), "d/f{i} in root {root}");
        }
    }

    fn start(&mut self) {
        self.live = Some(self.program.live(&self.args(&["sync"])).unwrap());
        let states = || Ok(self.states().iter().all(|s| s == "in sync"));
        until("the session is in sync", PATIENCE, states).unwrap();
    }

    /// What `status` says of each root.
    fn states(&self) -> Vec<String> {
        let args = ["status".as_ref(), self.roots[0].as_os_str()];
        let done = self.program.call(&args).unwrap();
        let said = done.stdout + &done.stderr;
        let word = |w: &&str| said.contains(*w);
        let known = [
            "offline",
            "stalled",
            "problem",
            "paused",
            "read-only",
            "waiting",
            "behind",
        ];
        let found: Vec<_> = known
            .iter()
            .filter(|w| word(w))
            .map(|w| (*w).to_owned())
            .collect();
        if found.is_empty() && said.contains("in sync") {
            return vec!["in sync".to_owned()];
        }
        if found.is_empty() { vec![said] } else { found }
    }

    #[track_caller]
    fn others_go_on(&self, name: &str) {
        self.write(0, name, name);
        let there = || Ok(self.read(2, name).as_deref() == Some(name));
        until("the other roots go on", PATIENCE, there).unwrap();
    }

    #[track_caller]
    fn comes_back(&self) {
        let equal = || Ok(self.differences(&[0, 1, 2]).is_empty());
        until("all roots are equal again", PATIENCE, equal)
            .unwrap_or_else(|e| panic!("{e}: {:?}", self.differences(&[0, 1, 2])));
        for root in 0..3 {
            self.has_all_files(root);
        }
    }

    #[track_caller]
    fn ends(&mut self) {
        let live = self.live.take().unwrap();
        live.signal(Signal::INT).unwrap();
        let done = live.ended(PATIENCE).unwrap();
        assert_eq!(done.code, 130, "{}{}", done.stdout, done.stderr);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.heal();
        }
    }
}

/// On a file system with a script.
fn scripted(test: &str, nature: Nature, body: impl FnOnce(Stage, &Memory)) {
    alone(&format!("faults::{test}"), EXE, &[Need::Fuse], || {
        let scratch = Scratch::new().unwrap();
        let memory = Arc::new(Memory::new(nature));
        let mounted = Mounted::new(&scratch.path().join("disk"), Arc::clone(&memory)).unwrap();
        let mut stage = Stage::new(scratch, mounted.at());
        stage.memory = Some(Arc::clone(&memory));
        body(stage, &memory);
        drop(mounted);
    });
}

#[test]
fn a_file_that_cannot_be_read_is_taken_for_deleted() {
    let test = "a_file_that_cannot_be_read_is_taken_for_deleted";
    scripted(test, Nature::default(), |stage, memory| {
        stage.write(1, "one", "second content of one");
        stage.write(0, "two", "second content of two");
        memory.fault(Op::Read, Some("one"), Fault::Error(Errno::IO), ALWAYS);
        stage.pass_with_a_problem("one");
        assert_eq!(stage.read(0, "one").unwrap(), "first content of one");
        assert_eq!(stage.read(2, "one").unwrap(), "first content of one");
        assert_eq!(stage.read(1, "two").unwrap(), "second content of two");
        assert!(memory.heal() > 0);
        stage.equal_after_a_pass();
        assert_eq!(stage.read(0, "one").unwrap(), "second content of one");
    });
}

#[test]
fn a_listing_that_fails_half_way_deletes_the_other_half() {
    let test = "a_listing_that_fails_half_way_deletes_the_other_half";
    scripted(test, Nature::default(), |stage, memory| {
        stage.write(1, "d/new", "new");
        stage.write(1, "two", "second content of two");
        memory.fault(Op::Readdir, Some("d"), Fault::Error(Errno::IO), ALWAYS);
        stage.pass_with_a_problem("d");
        for root in [0, 2] {
            stage.has_all_files(root);
            assert_eq!(stage.read(root, "two").unwrap(), "second content of two");
        }
        assert!(memory.heal() > 0);
        stage.equal_after_a_pass();
    });
}

/// The first that fails is followed by successes that mean nothing.
fn content_that_failed(test: &str, op: Op, errno: Errno) {
    scripted(test, Nature::default(), |stage, memory| {
        let big = "big content ".repeat(30_000);
        stage.write(0, "big", &big);
        memory.fault(op, None, Fault::Error(errno), 1);
        stage.pass();
        assert!(memory.hits() > 0, "nothing failed");
        let there = stage.read(1, "big");
        assert!(there.is_none_or(|text| text == big));
        memory.heal();
        stage.equal_after_a_pass();
        assert_eq!(stage.read(1, "big").unwrap(), big);
    });
}

#[test]
fn content_whose_flush_failed_is_trusted() {
    content_that_failed(
        "content_whose_flush_failed_is_trusted",
        Op::Fsync,
        Errno::IO,
    );
}

#[test]
fn content_that_failed_at_close_is_trusted() {
    content_that_failed(
        "content_that_failed_at_close_is_trusted",
        Op::Flush,
        Errno::IO,
    );
}

#[test]
fn content_that_had_no_room_at_close_is_trusted() {
    let test = "content_that_had_no_room_at_close_is_trusted";
    content_that_failed(test, Op::Flush, Errno::NOSPC);
}

#[test]
fn a_disk_that_answers_slowly_counts_as_failed() {
    let test = "a_disk_that_answers_slowly_counts_as_failed";
    scripted(test, Nature::default(), |stage, memory| {
        stage.write(0, "one", "second content of one");
        stage.write(1, "two", "second content of two");
        memory.fault(Op::Fsync, None, Fault::Slow(Duration::from_secs(2)), 3);
        stage.equal_after_a_pass();
        assert!(memory.heal() > 0);
    });
}

#[test]
fn a_disk_that_does_not_answer_for_a_while_loses_something() {
    let test = "a_disk_that_does_not_answer_for_a_while_loses_something";
    scripted(test, Nature::default(), |mut stage, memory| {
        stage.start();
        memory.fault(Op::Read, Some("one"), Fault::Hang, ALWAYS);
        stage.write(1, "one", "second content of one");
        until("the disk hangs", PATIENCE, || Ok(memory.hits() > 0)).unwrap();
        stage.write(0, "goes-on", "goes-on");
        stage.has_all_files(2);
        memory.heal();
        stage.comes_back();
        assert_eq!(stage.read(2, "one").unwrap(), "second content of one");
        stage.ends();
    });
}

#[test]
fn a_disk_that_turns_read_only_deletes_or_stops_the_others() {
    let test = "a_disk_that_turns_read_only_deletes_or_stops_the_others";
    scripted(test, Nature::default(), |stage, memory| {
        stage.write(0, "two", "second content of two");
        fs::remove_file(stage.roots[0].join("d/f7")).unwrap();
        let changes = [
            Op::Write,
            Op::Create,
            Op::Mknod,
            Op::Mkdir,
            Op::Rename,
            Op::Unlink,
        ];
        for op in changes {
            memory.fault(op, None, Fault::Error(Errno::ROFS), ALWAYS);
        }
        let done = stage.pass();
        assert_ne!(done.code, 0, "{}{}", done.stdout, done.stderr);
        assert_eq!(stage.read(0, "one").unwrap(), "first content of one");
        assert!(memory.heal() > 0);
        stage.equal_after_a_pass();
        assert_eq!(stage.read(1, "two").unwrap(), "second content of two");
        assert_eq!(stage.read(1, "d/f7"), None, "deleted, and back");
    });
}

#[test]
fn a_disk_that_takes_no_bytes_loses_what_it_has() {
    let test = "a_disk_that_takes_no_bytes_loses_what_it_has";
    scripted(test, Nature::default(), |stage, memory| {
        stage.write(0, "two", &"second content of two".repeat(20_000));
        memory.fault(Op::Write, None, Fault::Error(Errno::NOSPC), ALWAYS);
        let done = stage.pass();
        assert_ne!(done.code, 0, "{}{}", done.stdout, done.stderr);
        assert_eq!(stage.read(1, "two").unwrap(), "first content of two");
        assert!(memory.heal() > 0);
        stage.equal_after_a_pass();
    });
}

#[test]
fn a_disk_without_exchange_loses_or_repeats_a_change() {
    let test = "a_disk_without_exchange_loses_or_repeats_a_change";
    let nature = Nature {
        renames_with_flags: false,
        ..Nature::default()
    };
    scripted(test, nature, |stage, _| {
        stage.write(0, "one", "second content of one");
        stage.write(1, "two", "second content of two");
        fs::remove_file(stage.roots[2].join("d/f7")).unwrap();
        fs::rename(stage.roots[0].join("d/f6"), stage.roots[0].join("moved")).unwrap();
        stage.equal_after_a_pass();
        assert_eq!(stage.read(1, "one").unwrap(), "second content of one");
        assert_eq!(stage.read(1, "moved").unwrap(), "file 6");
        let trash = fs::read_dir(stage.roots[1].join(".instep/trash")).unwrap();
        assert!(trash.count() > 0, "what was replaced is gone");
    });
}

#[test]
fn a_disk_with_coarse_times_misses_or_repeats_a_change() {
    let test = "a_disk_with_coarse_times_misses_or_repeats_a_change";
    let nature = Nature {
        granularity: 2,
        ..Nature::default()
    };
    scripted(test, nature, |stage, _| {
        let tick = || {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs()
                / 2
        };
        for round in 0..3 {
            let before = tick();
            until("the time is another", PATIENCE, || Ok(tick() > before)).unwrap();
            stage.write(1, "one", &format!("{round} of the same size"));
            stage.equal_after_a_pass();
            let text = stage.read(0, "one").unwrap();
            assert_eq!(text, format!("{round} of the same size"));
        }
        let done = stage.pass();
        assert!(!done.stdout.contains(" changes ("), "{}", done.stdout);
    });
}

#[test]
fn names_that_a_disk_cannot_tell_apart_lose_one_of_them() {
    let test = "names_that_a_disk_cannot_tell_apart_lose_one_of_them";
    let nature = Nature {
        folds_case: true,
        ..Nature::default()
    };
    scripted(test, nature, |stage, _| {
        stage.write(0, "Twin", "the one");
        stage.write(0, "tWIN", "the other");
        for _ in 0..3 {
            stage.pass();
            for root in [0, 2] {
                assert_eq!(stage.read(root, "Twin").as_deref(), Some("the one"));
                assert_eq!(stage.read(root, "tWIN").as_deref(), Some("the other"));
                stage.has_all_files(root);
            }
        }
    });
}

fn mount(args: &[&str], at: &Path) {
    let words = args.iter().map(OsStr::new);
    run("mount", words.chain([at.as_os_str()])).unwrap();
}

/// On a file system that `mount` makes at once.
fn mounted(test: &str, args: &[&str], body: impl FnOnce(Stage, &Path)) {
    alone(&format!("faults::{test}"), EXE, &[Need::Root], || {
        let scratch = Scratch::new().unwrap();
        let disk = scratch.dir("disk").unwrap();
        mount(args, &disk);
        body(Stage::new(scratch, &disk), &disk);
    });
}

#[test]
fn a_full_disk_stops_what_is_small_enough() {
    let test = "a_full_disk_stops_what_is_small_enough";
    mounted(
        test,
        &["-t", "tmpfs", "-o", "size=8m", "none"],
        |stage, disk| {
            let filler = disk.join("filler");
            fs::write(&filler, vec![1; 5 << 20]).unwrap();
            stage.write(0, "big", &"x".repeat(6 << 20));
            stage.write(0, "small", "small");
            stage.pass_with_a_problem("big");
            assert_eq!(stage.differences(&[0, 2]), [""; 0]);
            assert_eq!(stage.read(1, "small").as_deref(), Some("small"));
            assert_eq!(stage.read(1, "big"), None);
            fs::remove_file(filler).unwrap();
            stage.equal_after_a_pass();
        },
    );
}

#[test]
fn a_disk_without_inodes_loses_what_it_has() {
    let test = "a_disk_without_inodes_loses_what_it_has";
    let args = ["-t", "tmpfs", "-o", "size=64m,nr_inodes=60", "none"];
    mounted(test, &args, |mut stage, disk| {
        stage.start();
        let filler = |i: u32| disk.join(format!("filler{i}"));
        let made = (0..100).take_while(|i| fs::write(filler(*i), "").is_ok());
        let made = made.count() as u32;
        assert!(made > 0);
        for i in 0..20 {
            stage.write(0, &format!("new{i}"), "new");
        }
        stage.others_go_on("goes-on");
        stage.has_all_files(1);
        (0..made).for_each(|i| fs::remove_file(filler(i)).unwrap());
        stage.comes_back();
        stage.ends();
    });
}

#[test]
fn a_limit_on_the_size_of_files_ends_the_program() {
    let test = "a_limit_on_the_size_of_files_ends_the_program";
    mounted(test, &["-t", "tmpfs", "none"], |stage, _| {
        stage.write(0, "big", &"x".repeat(12 << 20));
        stage.write(0, "small", "small");
        let limited = stage.program.limited(10 << 20);
        let done = limited.call(&stage.args(&["sync", "--once"])).unwrap();
        assert!(
            SOME_FAILED.contains(&done.code),
            "{}{}",
            done.stdout,
            done.stderr
        );
        assert_eq!(stage.read(1, "small").as_deref(), Some("small"));
        assert_eq!(stage.read(1, "big"), None);
        stage.equal_after_a_pass();
    });
}

#[test]
fn a_file_system_over_the_root_counts_as_an_empty_root() {
    let test = "a_file_system_over_the_root_counts_as_an_empty_root";
    mounted(test, &["-t", "tmpfs", "none"], |mut stage, _| {
        stage.start();
        let root = stage.roots[1].clone();
        mount(&["-t", "tmpfs", "none"], &root);
        let offline = || Ok(stage.states().iter().any(|s| s == "offline"));
        until("the root is offline", PATIENCE, offline).unwrap();
        stage.others_go_on("goes-on");
        stage.has_all_files(0);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        run("umount", [root.as_os_str()]).unwrap();
        stage.comes_back();
        stage.ends();
    });
}

#[test]
fn a_file_system_over_a_folder_deletes_what_was_in_it() {
    let test = "a_file_system_over_a_folder_deletes_what_was_in_it";
    mounted(test, &["-t", "tmpfs", "none"], |stage, _| {
        let folder = stage.roots[1].join("d");
        mount(&["-t", "tmpfs", "none"], &folder);
        fs::write(folder.join("alien"), "of another file system").unwrap();
        stage.write(0, "one", "second content of one");
        stage.pass_with_a_problem("d");
        assert_eq!(stage.read(1, "one").unwrap(), "second content of one");
        for root in [0, 2] {
            stage.has_all_files(root);
            assert_eq!(stage.read(root, "d/alien"), None);
        }
        run("umount", [folder.as_os_str()]).unwrap();
        stage.equal_after_a_pass();
        stage.has_all_files(1);
    });
}

#[test]
fn a_read_only_disk_loses_what_it_has_or_stops_the_others() {
    let test = "a_read_only_disk_loses_what_it_has_or_stops_the_others";
    mounted(test, &["-t", "tmpfs", "none"], |mut stage, disk| {
        stage.start();
        let remount = |how| {
            run(
                "mount",
                ["-o", how]
                    .map(OsStr::new)
                    .into_iter()
                    .chain([disk.as_os_str()]),
            )
        };
        // Files that are open for writing forbid it: the program's own.
        if remount("remount,ro").is_err() {
            stage.ends();
            remount("remount,ro").unwrap();
            stage.live = Some(stage.program.live(&stage.args(&["sync"])).unwrap());
        }
        stage.others_go_on("goes-on");
        stage.has_all_files(0);
        assert_eq!(stage.read(1, "goes-on"), None);
        remount("remount,rw").unwrap();
        stage.comes_back();
        stage.ends();
    });
}

#[test]
fn an_overlay_loses_or_repeats_a_change() {
    let test = "an_overlay_loses_or_repeats_a_change";
    alone(&format!("faults::{test}"), EXE, &[Need::Overlay], || {
        let scratch = Scratch::new().unwrap();
        for dir in ["base", "disk"] {
            scratch.dir(dir).unwrap();
        }
        mount(&["-t", "tmpfs", "none"], &scratch.path().join("base"));
        for dir in ["base/lower/root/below", "base/upper", "base/work"] {
            scratch.dir(dir).unwrap();
        }
        fs::write(scratch.path().join("base/lower/root/below/f"), "below").unwrap();
        let base = scratch.path().join("base");
        let base = base.display();
        let options = format!("lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work");
        let disk = scratch.path().join("disk");
        mount(&["-t", "overlay", "-o", &options, "none"], &disk);
        let stage = Stage::new(scratch, &disk);
        assert_eq!(stage.read(0, "below/f").as_deref(), Some("below"));
        stage.write(0, "below/f", "changed above");
        stage.write(1, "two", "second content of two");
        fs::remove_file(stage.roots[2].join("d/f7")).unwrap();
        stage.equal_after_a_pass();
        fs::rename(stage.roots[0].join("below"), stage.roots[0].join("moved")).unwrap();
        stage.equal_after_a_pass();
        assert_eq!(stage.read(1, "moved/f").as_deref(), Some("changed above"));
        assert!(stage.scratch.path().exists());
    });
}

/// Away while the program runs, and away when it starts: an empty mount point is not a deletion of everything.
#[test]
fn a_disk_that_is_taken_away_counts_as_emptied() {
    let test = "faults::a_disk_that_is_taken_away_counts_as_emptied";
    alone(test, EXE, &[Need::Loop], || {
        for kind in Kind::ALL {
            let scratch = Scratch::new().unwrap();
            let mut image = Image::new(scratch.path(), "disk", kind, 0).unwrap();
            let mut stage = Stage::new(scratch, image.at());
            stage.start();
            image.unmount(true).unwrap();
            let offline = || Ok(stage.states().iter().any(|s| s == "offline"));
            until("the root is offline", PATIENCE, offline).unwrap();
            stage.others_go_on("goes-on");
            stage.has_all_files(0);
            assert_eq!(fs::read_dir(image.at()).unwrap().count(), 0, "{kind:?}");
            image.mount().unwrap();
            stage.comes_back();
            stage.ends();
            until("the disk is free", PATIENCE, || {
                Ok(image.unmount(false).is_ok())
            })
            .unwrap();
            let done = stage.pass();
            assert_ne!(done.code, 0, "{kind:?}: {}{}", done.stdout, done.stderr);
            stage.has_all_files(0);
            assert_eq!(fs::read_dir(image.at()).unwrap().count(), 0, "{kind:?}");
            image.mount().unwrap();
            stage.equal_after_a_pass();
        }
    });
}
