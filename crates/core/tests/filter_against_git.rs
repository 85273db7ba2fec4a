//! The ignore rules of `instep_core::filter` against the program that defines them: `git check-ignore`.
//!
//! Random rules from a small, nasty alphabet, in every source that Git knows, judge random trees; both must
//! name the same source and line for every path, also for rules that take a path back.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use instep_core::filter::{DirState, Layer, RuleId, RuleSource, Rules, RulesBuilder};
use instep_core::path::{Name, RelPath};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A repository without files, and a place for trees.
struct Git {
    home: tempfile::TempDir,
}

/// What Git says about one path: the source and the line that decide.
type Decision = Option<(Vec<u8>, u32)>;

impl Git {
    fn new() -> Self {
        let git = Self {
            home: tempfile::tempdir().unwrap(),
        };
        let out = git
            .command()
            .args(["init", "--quiet", "--template="])
            .arg(git.dir())
            .output();
        let out = out.expect("this test compares with git, so git must be installed and in PATH");
        assert!(out.status.success(), "git init failed: {out:?}");
        fs::create_dir_all(git.exclude().parent().unwrap()).unwrap();
        git
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .env("HOME", self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("repo")
    }

    fn excludes_file(&self) -> PathBuf {
        self.home.path().join("excludes")
    }

    fn exclude(&self) -> PathBuf {
        self.dir().join(".git/info/exclude")
    }

    fn decisions(&self, tree: &Path, paths: &[RelPath]) -> Vec<Decision> {
        let mut input = Vec::new();
        for path in paths {
            // Without the dot, a path that starts with a colon would be taken for something else.
            input.extend_from_slice(b"./");
            input.extend_from_slice(path.as_bytes());
            input.push(0);
        }
        let list = self.home.path().join("paths");
        fs::write(&list, input).unwrap();
        let mut command = self.command();
        command
            .current_dir(tree)
            .arg("--git-dir")
            .arg(self.dir().join(".git"));
        command
            .arg("--work-tree")
            .arg(tree)
            .args(["-c", "core.ignoreCase=false", "-c"]);
        command.arg(format!(
            "core.excludesFile={}",
            self.excludes_file().display()
        ));
        command.args(["check-ignore", "--no-index", "-v", "-n", "-z", "--stdin"]);
        let out = command
            .stdin(Stdio::from(fs::File::open(&list).unwrap()))
            .output()
            .unwrap();
        assert!(
            matches!(out.status.code(), Some(0 | 1)),
            "git check-ignore failed: {out:?}"
        );
        let fields: Vec<&[u8]> = out.stdout.split(|b| *b == 0).collect();
        let decisions: Vec<Decision> = fields
            .chunks_exact(4)
            .map(|f| match f[1] {
                b"" => None,
                line => Some((
                    f[0].to_vec(),
                    std::str::from_utf8(line).unwrap().parse().unwrap(),
                )),
            })
            .collect();
        assert_eq!(
            decisions.len(),
            paths.len(),
            "git answered for other paths than asked"
        );
        decisions
    }
}

/// A tree with an ignore file in some of its directories.
struct Case {
    /// Every path, and whether it is a directory.
    entries: BTreeMap<Vec<u8>, bool>,
    excludes: Vec<u8>,
    config: Vec<u8>,
    nested: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (path, is_dir) in &self.entries {
            writeln!(f, "  {}{}", shown(path), if *is_dir { "/" } else { "" })?;
        }
        writeln!(f, "  excludes: {}", shown(&self.excludes))?;
        writeln!(f, "  info/exclude: {}", shown(&self.config))?;
        for (dir, text) in &self.nested {
            writeln!(f, "  .gitignore in {:?}: {}", shown(dir), shown(text))?;
        }
        Ok(())
    }
}

impl Case {
    fn new(
        paths: Vec<(Vec<Vec<u8>>, bool)>,
        excludes: Vec<u8>,
        config: Vec<u8>,
        nested: Vec<(Index, Vec<u8>)>,
    ) -> Self {
        let mut entries = BTreeMap::new();
        for (components, is_dir) in paths {
            for depth in 1..=components.len() {
                let is_dir = depth < components.len() || is_dir;
                *entries.entry(components[..depth].join(&b'/')).or_default() |= is_dir;
            }
        }
        let dirs: Vec<Vec<u8>> = std::iter::once(Vec::new())
            .chain(
                entries
                    .iter()
                    .filter(|(_, dir)| **dir)
                    .map(|(path, _)| path.clone()),
            )
            .collect();
        let nested = nested
            .into_iter()
            .map(|(at, text)| (at.get(&dirs).clone(), text))
            .collect();
        Self {
            entries,
            excludes,
            config,
            nested,
        }
    }

    fn write(&self, git: &Git, tree: &Path) {
        fs::write(git.excludes_file(), &self.excludes).unwrap();
        fs::write(git.exclude(), &self.config).unwrap();
        for (path, is_dir) in &self.entries {
            let path = tree.join(OsStr::from_bytes(path));
            if *is_dir {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::write(path, b"").unwrap();
            }
        }
        for (dir, text) in &self.nested {
            fs::write(tree.join(OsStr::from_bytes(dir)).join(".gitignore"), text).unwrap();
        }
    }

    fn sources(&self, git: &Git) -> Vec<RuleSource> {
        let name = |path: PathBuf| path.to_str().unwrap().to_owned();
        let source = |name, layer, base: &[u8], text: &Vec<u8>| RuleSource {
            name,
            layer,
            base: RelPath::new(base).unwrap(),
            text: text.clone(),
        };
        let mut sources = vec![
            source(name(git.excludes_file()), Layer::Pack, b"", &self.excludes),
            source(name(git.exclude()), Layer::Config, b"", &self.config),
        ];
        for (dir, text) in &self.nested {
            let name = if dir.is_empty() {
                ".gitignore".into()
            } else {
                shown(dir) + "/.gitignore"
            };
            sources.push(source(name, Layer::GitIgnore, dir, text));
        }
        sources
    }
}

/// Sources are named by text, directories are bytes: one spelling for both sides of the comparison.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn ours(rule: Option<RuleId>) -> Decision {
    rule.map(|r| (r.source().as_bytes().to_vec(), r.line()))
}

fn theirs(decision: Decision) -> Decision {
    decision.map(|(source, line)| match source.strip_suffix(b"/.gitignore") {
        Some(dir) => (format!("{}/.gitignore", shown(dir)).into_bytes(), line),
        None => (source, line),
    })
}

/// Answers as a walker does: one name at a time, with ignore files added as they are found.
fn walk(dir: &DirState, nested: &[RuleSource], case: &Case, out: &mut BTreeMap<RelPath, Decision>) {
    let found = nested.iter().filter(|s| s.base == *dir.path());
    let dir = found.fold(dir.clone(), |d, s| d.with_source(&s.clone().compile().0));
    for (path, is_dir) in &case.entries {
        let path = RelPath::new(path).unwrap();
        let (parent, name) = path.split().unwrap();
        if parent == *dir.path() {
            out.insert(path.clone(), ours(dir.last_match(name, *is_dir)));
            if *is_dir {
                walk(&dir.enter(name), nested, case, out);
            }
        }
    }
}

fn compare(git: &Git, case: &Case) {
    let tree = tempfile::tempdir_in(git.home.path()).unwrap();
    case.write(git, tree.path());
    let paths: Vec<RelPath> = case
        .entries
        .keys()
        .map(|p| RelPath::new(p).unwrap())
        .collect();
    let expected: Vec<Decision> = git
        .decisions(tree.path(), &paths)
        .into_iter()
        .map(theirs)
        .collect();

    let sources = case.sources(git);
    let builder = sources
        .iter()
        .cloned()
        .fold(Rules::builder(), RulesBuilder::add_source);
    let rules = builder.build().0;
    let (top, nested) = sources.split_at(2);
    let top = top
        .iter()
        .cloned()
        .fold(Rules::builder(), RulesBuilder::add_source)
        .build()
        .0;
    let mut walked = BTreeMap::new();
    walk(&top.root(), nested, case, &mut walked);

    for (path, expected) in paths.iter().zip(expected) {
        let is_dir = case.entries[path.as_bytes()];
        let got = ours(rules.last_match(path, is_dir));
        let show = |d: &Decision| d.as_ref().map(|(s, l)| format!("{}:{l}", shown(s)));
        assert_eq!(show(&got), show(&expected), "{path:?} (ours, then git's)");
        assert_eq!(
            show(&walked[path]),
            show(&expected),
            "{path:?} while walking"
        );
    }
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        8 => select(b"ab".to_vec()),
        3 => select(b"*-[]!#\\ ^:?.\r\xff\xc3".to_vec()),
    ];
    vec(byte, 1..4).prop_filter("not a name", |n| Name::new(n).is_ok())
}

fn pattern() -> impl Strategy<Value = Vec<u8>> {
    let plain = select(vec![&b"a"[..], b"b", b"ab", b"/", b"*", b"?"]);
    let wild = select(vec![
        &b"**/"[..],
        b"/**",
        b"**",
        b"***",
        b"/**/",
        b"[ab]",
        b"[!a]",
        b"[^b]",
        b"[a-b]",
        b"[]-]",
        b"[b-a]",
        b"[!]a]",
        b"[a\\-b]",
        b"[\\]]",
        b"[[:alpha:]]",
        b"[[:punct:]x]",
        b"[![:alpha:]]",
        b"[[:space:]-b]",
        b"[a-[:alpha:]]",
        b"[[:x:]]",
        b"[[:a]",
        b"[[::]]",
        b"[/]",
        b"[*]",
    ]);
    let odd = select(vec![
        &b"["[..],
        b"]",
        b"!",
        b"\\",
        b"\\/",
        b"\\\\",
        b"\\ ",
        b" ",
        b"\t",
        b"#",
        b"-",
        b".",
        b"^",
        b":",
        b"\r",
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xef\xbb\xbf",
    ]);
    let token = prop_oneof![9 => plain, 4 => wild, 2 => odd];
    vec(token, 1..7).prop_map(|tokens| tokens.concat())
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    // Patterns made of names that are likely to be there, so that rules do meet paths.
    let likely = vec(
        prop_oneof![4 => name(), 1 => Just(b"**".to_vec()), 1 => Just(b"*".to_vec())],
        1..4,
    )
    .prop_map(|parts| parts.join(&b'/'));
    let decorated = |p: BoxedStrategy<Vec<u8>>| {
        let before = prop_oneof![6 => Just(&b""[..]), 3 => Just(&b"!"[..]), 2 => Just(&b"/"[..]), 1 => Just(&b"!/"[..])];
        let after = prop_oneof![6 => Just(&b""[..]), 2 => Just(&b"/"[..]), 1 => Just(&b"  "[..]), 1 => Just(&b"/**"[..])];
        (before, p, after).prop_map(|(b, p, a)| [b, &p[..], a].concat())
    };
    prop_oneof![3 => decorated(pattern().boxed()), 2 => decorated(likely.boxed())]
        .prop_map(without_disputed_stars)
}

/// Turns `name**` into `name*`. The documentation calls the two equal, but Git before 2.52 forgot the literal
/// start of a pattern with a slash and took these stars for a `**` of their own.
fn without_disputed_stars(mut line: Vec<u8>) -> Vec<u8> {
    let start = line.iter().position(|b| !b"!/".contains(b)).unwrap_or(0);
    let literal = line[start..]
        .iter()
        .position(|b| b"*?[\\".contains(b))
        .unwrap_or(0);
    let stars = start + literal;
    if literal > 0 && line[stars - 1] != b'/' {
        let run = line[stars..].iter().take_while(|b| **b == b'*').count();
        line.drain(stars..stars + run.saturating_sub(1));
    }
    line
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![8 => Just(&b"\n"[..]), 1 => Just(&b"\r\n"[..]), 1 => Just(&b"\n\n"[..])];
    let start = prop_oneof![9 => Just(&b""[..]), 1 => Just(&b"\xef\xbb\xbf"[..])];
    (start, vec((line(), end), 0..6), any::<bool>()).prop_map(|(start, lines, complete)| {
        let mut text = start.to_vec();
        for (line, end) in &lines {
            text.extend_from_slice(line);
            text.extend_from_slice(end);
        }
        if !complete {
            text.pop();
        }
        text
    })
}

fn case() -> impl Strategy<Value = Case> {
    let path = (vec(name(), 1..5), any::<bool>());
    (
        vec(path, 1..16),
        text(),
        text(),
        vec((any::<Index>(), text()), 0..5),
    )
        .prop_map(|(paths, excludes, config, nested)| Case::new(paths, excludes, config, nested))
}

#[test]
fn random_rules_decide_as_git_does() {
    let git = Git::new();
    let config = ProptestConfig {
        cases: 400,
        max_shrink_iters: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(case in case())| compare(&git, &case));
}

#[test]
fn every_class_and_range_holds_the_bytes_that_git_says() {
    let git = Git::new();
    let entries: BTreeMap<_, _> = (1..=255_u8)
        .filter(|b| !b"/.".contains(b))
        .map(|b| (vec![b], false))
        .collect();
    let classes = [
        "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
        "upper", "xdigit",
    ];
    let mut patterns: Vec<String> = classes.iter().map(|c| format!("[[:{c}:]]")).collect();
    patterns.extend(
        [
            "[!-~]",
            "[^[:alpha:]0-9]",
            "[a-]",
            "[--/]",
            "[!]-]",
            "?",
            "[+--]",
        ]
        .map(Into::into),
    );
    for pattern in patterns {
        let nested = BTreeMap::from([(Vec::new(), pattern.into_bytes())]);
        let (excludes, config) = (Vec::new(), Vec::new());
        compare(
            &git,
            &Case {
                entries: entries.clone(),
                excludes,
                config,
                nested,
            },
        );
    }
}

#[test]
fn a_link_to_a_directory_is_not_a_directory() {
    let git = Git::new();
    let tree = tempfile::tempdir_in(git.home.path()).unwrap();
    fs::create_dir(tree.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", tree.path().join("link")).unwrap();
    fs::write(tree.path().join(".gitignore"), "real/\nlink/\n").unwrap();
    let paths: Vec<RelPath> = ["real", "link"]
        .map(|p| RelPath::new(p.as_bytes()).unwrap())
        .into();
    let said: Vec<bool> = git
        .decisions(tree.path(), &paths)
        .iter()
        .map(Option::is_some)
        .collect();
    assert_eq!(said, [true, false], "what git takes for a directory");
}

#[test]
fn the_random_cases_are_worth_running() {
    // A comparison in which no rule ever meets a path would pass and prove nothing.
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let git = Git::new();
    let mut runner = TestRunner::deterministic();
    let mut layers = BTreeSet::new();
    let (mut paths, mut ignored, mut taken_back) = (0, 0, 0);
    for _ in 0..200 {
        let case = case().new_tree(&mut runner).unwrap().current();
        let rules = case
            .sources(&git)
            .into_iter()
            .fold(Rules::builder(), RulesBuilder::add_source);
        let rules = rules.build().0;
        for (path, is_dir) in &case.entries {
            paths += 1;
            if let Some(rule) = rules.last_match(&RelPath::new(path).unwrap(), *is_dir) {
                layers.insert(rule.layer());
                *(if rule.is_negated() {
                    &mut taken_back
                } else {
                    &mut ignored
                }) += 1;
            }
        }
    }
    assert!(ignored * 10 > paths, "{ignored} of {paths} ignored");
    assert!(
        taken_back * 30 > paths,
        "{taken_back} of {paths} taken back"
    );
    assert_eq!(
        layers.into_iter().collect::<Vec<_>>(),
        [Layer::Pack, Layer::Config, Layer::GitIgnore]
    );
}
