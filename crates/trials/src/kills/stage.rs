//! Where a scene is played: roots on some file system, users who write in them, and the program.
//!
//! Invariant: what users do follows from the scene alone, names, contents and times included, so that a scene that was
//! played twice ends with equal trees. Every content that is written is unlike every other.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use instep_testkit::scratch::Scratch;

use super::program::{Ended, Program};
use super::seen::Content;

/// Seconds since 1970 when the first user of a scene writes: long ago, so that no clock is ahead of it.
const BEGIN: u64 = 1_700_000_000;

/// Roots, users and the program.
#[derive(Debug)]
pub struct Stage {
    /// The roots, called `a`, `b` and so on.
    pub roots: Vec<PathBuf>,
    /// The program.
    pub program: Program,
    /// Every content that a user wrote.
    pub written: BTreeMap<Content, Vec<u8>>,
    /// Set for every run from now on.
    pub env: Vec<(&'static str, String)>,
    seconds: u64,
    place: Scratch,
}

impl Stage {
    /// Empty roots below a directory.
    pub fn new(exe: &Path, within: &Path, roots: usize) -> io::Result<Self> {
        let place = Scratch::new_in(within)?;
        let program = Program::new(exe, place.path())?;
        let names = ["a", "b", "c", "d"];
        let roots = names[..roots].iter().map(|name| place.dir(name));
        Ok(Self {
            roots: roots.collect::<io::Result<_>>()?,
            program,
            written: BTreeMap::new(),
            env: Vec::new(),
            seconds: BEGIN,
            place,
        })
    }

    /// Leaves everything behind, to be looked at.
    pub fn keep(&mut self) -> PathBuf {
        self.place.keep();
        self.place.path().to_owned()
    }

    /// A path in a root.
    pub fn at(&self, root: usize, path: &str) -> PathBuf {
        self.roots[root].join(path)
    }

    /// The roots as arguments.
    pub fn typed(&self) -> Vec<String> {
        let text = |root: &PathBuf| root.to_string_lossy().into_owned();
        self.roots.iter().map(text).collect()
    }

    /// A command on all roots.
    pub fn command(&self, words: &[&str]) -> Vec<String> {
        let words = words.iter().map(|w| (*w).to_owned());
        words.chain(self.typed()).collect()
    }

    /// Runs a command.
    pub fn run(&self, args: &[String], more: &[(&'static str, String)]) -> io::Result<Ended> {
        let env: Vec<_> = self.env.iter().chain(more).cloned().collect();
        self.program.run(args, &env)
    }

    /// Runs a command that must end with one of these codes.
    #[track_caller]
    pub fn must(&self, args: &[String], codes: &[i32]) -> Ended {
        let ended = self
            .run(args, &[])
            .unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let code = ended.code.unwrap_or(-1);
        assert!(
            codes.contains(&code),
            "{args:?} ended with {code}\n{}",
            ended.said
        );
        ended
    }

    /// Makes all roots equal.
    #[track_caller]
    pub fn sync(&self) {
        self.must(&self.command(&["sync", "--once"]), &[0, 4]);
    }

    /// As [`Stage::sync`], but it dies.
    #[track_caller]
    pub fn sync_dies(&self, at: &str) {
        let args = self.command(&["sync", "--once"]);
        let stop = [("INSTEP_STOP_AT", at.to_owned())];
        let ended = self.run(&args, &stop).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(ended.code, None, "did not come to {at}\n{}", ended.said);
    }

    fn content(&mut self, size: usize) -> Vec<u8> {
        self.seconds += 1;
        let mut bytes = format!("<{}>", self.seconds).into_bytes();
        // Long contents are no run of one byte, which a disk might make a hole of.
        let filler: Vec<u8> = (1..=251).collect();
        while bytes.len() < size {
            let more = (size - bytes.len()).min(filler.len());
            bytes.extend_from_slice(&filler[..more]);
        }
        self.written.insert(Content::of(&bytes), bytes.clone());
        bytes
    }

    #[track_caller]
    fn date(&self, path: &Path) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.seconds);
        let dated = File::options().write(true).open(path);
        let dated = dated.and_then(|f| f.set_times(FileTimes::new().set_modified(time)));
        dated.unwrap_or_else(|e| panic!("date {}: {e}", path.display()));
    }

    /// What a machine that went down may leave of a file counts as written.
    pub fn tear(&mut self, bytes: &[u8]) {
        self.written.insert(Content::of(bytes), bytes.to_vec());
    }

    /// A user writes a file in place.
    #[track_caller]
    pub fn put(&mut self, root: usize, path: &str, size: usize) {
        let bytes = self.content(size);
        let path = self.at(root, path);
        let parent = path.parent().unwrap_or(&path);
        let wrote = fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes));
        wrote.unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
        self.date(&path);
    }

    /// A user saves a file as most editors do: a new one is renamed over the old one.
    #[track_caller]
    pub fn save(&mut self, root: usize, path: &str, size: usize) {
        let bytes = self.content(size);
        let path = self.at(root, path);
        let draft = path.with_extension("draft");
        fs::write(&draft, bytes).unwrap_or_else(|e| panic!("write {}: {e}", draft.display()));
        self.date(&draft);
        fs::rename(&draft, &path).unwrap_or_else(|e| panic!("save {}: {e}", path.display()));
    }

    /// A user touches a file.
    #[track_caller]
    pub fn touch(&mut self, root: usize, path: &str) {
        self.seconds += 1;
        self.date(&self.at(root, path));
    }

    /// A user makes a directory.
    #[track_caller]
    pub fn dir(&self, root: usize, path: &str) {
        fs::create_dir_all(self.at(root, path)).unwrap_or_else(|e| panic!("make {path}: {e}"));
    }

    /// A user makes a link.
    #[track_caller]
    pub fn link(&self, root: usize, path: &str, target: &str) {
        let made = std::os::unix::fs::symlink(target, self.at(root, path));
        made.unwrap_or_else(|e| panic!("link {path}: {e}"));
    }

    /// A user sets permissions.
    #[track_caller]
    pub fn mode(&self, root: usize, path: &str, mode: u32) {
        let set = fs::set_permissions(self.at(root, path), Permissions::from_mode(mode));
        set.unwrap_or_else(|e| panic!("chmod {path}: {e}"));
    }

    /// A user deletes a file, a link, or a directory with what is in it.
    #[track_caller]
    pub fn delete(&self, root: usize, path: &str) {
        let at = self.at(root, path);
        let is_dir = fs::symlink_metadata(&at).is_ok_and(|m| m.is_dir());
        let deleted = if is_dir {
            fs::remove_dir_all(&at)
        } else {
            fs::remove_file(&at)
        };
        deleted.unwrap_or_else(|e| panic!("delete {path}: {e}"));
    }

    /// A user renames something.
    #[track_caller]
    pub fn rename(&self, root: usize, from: &str, to: &str) {
        let renamed = fs::rename(self.at(root, from), self.at(root, to));
        renamed.unwrap_or_else(|e| panic!("rename {from} to {to}: {e}"));
    }

    /// The ids in a list that a command prints as JSON.
    #[track_caller]
    pub fn ids(&self, command: &str) -> Vec<String> {
        let args = self.command(&["--json", command]);
        let said = self.must(&args, &[0, 4, 5]).said;
        // One key of one document, which is all that is wanted of it.
        let ids = said.split("\"id\":\"").skip(1);
        ids.filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect()
    }
}
