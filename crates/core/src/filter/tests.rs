//! Tables of precedence, inheritance and incremental walking.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use super::*;
use crate::path::{Name, RelPath};

fn p(path: &str) -> RelPath {
    RelPath::new(path.as_bytes()).unwrap()
}

fn source(layer: Layer, base: &str, text: &str) -> RuleSource {
    let file = match layer {
        Layer::GitIgnore => ".gitignore",
        Layer::InstepIgnore => ".instepignore",
        _ => "list",
    };
    let name = if base.is_empty() {
        file.to_owned()
    } else {
        format!("{base}/{file}")
    };
    RuleSource {
        name,
        layer,
        base: p(base),
        text: text.into(),
    }
}

fn rules(sources: &[(Layer, &str, &str)]) -> Rules {
    let builder = sources
        .iter()
        .fold(Rules::builder(), |b, (layer, base, text)| {
            b.add_source(source(*layer, base, text))
        });
    let (rules, problems) = builder.build();
    assert_eq!(problems, []);
    rules
}

fn by(rules: &Rules, path: &str, is_dir: bool) -> String {
    match rules.verdict(&p(path), is_dir) {
        Verdict::Included => "included".to_owned(),
        Verdict::Ignored(rule) => rule.to_string(),
    }
}

#[test]
fn the_last_rule_of_a_source_wins() {
    let rules = rules(&[(
        Layer::Config,
        "",
        "*.log\n!keep.log\n/keep.log\n*.tmp\n!*.tmp",
    )]);
    assert_eq!(by(&rules, "a.log", false), "list:1 *.log");
    assert_eq!(by(&rules, "d/keep.log", false), "included");
    assert_eq!(by(&rules, "keep.log", false), "list:3 /keep.log");
    assert_eq!(by(&rules, "x.tmp", false), "included");
    assert_eq!(rules.last_match(&p("x.tmp"), false).unwrap().line(), 5);
}

#[test]
fn nothing_below_an_ignored_directory_can_be_taken_back() {
    let rules = rules(&[
        (Layer::Config, "", "target/\n!target/debug/app"),
        (Layer::InstepIgnore, "target", "!*"),
        (Layer::InstepIgnore, "", "!target/debug/app"),
    ]);
    assert_eq!(by(&rules, "target/debug/app", false), "list:1 target/");
    assert_eq!(by(&rules, "src/target/debug/app", false), "list:1 target/");
    assert_eq!(by(&rules, "target", false), "included");
}

#[test]
fn a_directory_whose_contents_are_ignored_can_give_some_back() {
    let rules = rules(&[(Layer::Config, "", "/build/*\n!/build/keep\n/build/keep/*.o")]);
    assert_eq!(by(&rules, "build", true), "included");
    assert_eq!(by(&rules, "build/x", true), "list:1 /build/*");
    assert_eq!(by(&rules, "build/x/y", false), "list:1 /build/*");
    assert_eq!(by(&rules, "build/keep/a.c", false), "included");
    assert_eq!(
        by(&rules, "build/keep/a.o", false),
        "list:3 /build/keep/*.o"
    );
}

#[test]
fn stronger_layers_and_deeper_files_override() {
    let all = [
        (Layer::InstepIgnore, "a/b", "!i"),
        (Layer::InstepIgnore, "", "i\n!g"),
        (Layer::GitIgnore, "a", "g\n!c\n!k"),
        (Layer::Config, "", "c\nk\n!p"),
        (Layer::Pack, "", "p\nq"),
    ];
    let rules = rules(&all);
    for (path, expected) in [
        ("p", "included"),
        ("q", "list:2 q"),
        ("c", "list:1 c"),
        ("a/c", "included"),
        ("a/g", "included"),
        ("i", ".instepignore:1 i"),
        ("a/i", ".instepignore:1 i"),
        ("a/b/i", "included"),
        ("a/b/c/i", "included"),
    ] {
        assert_eq!(by(&rules, path, false), expected, "{path}");
    }
}

#[test]
fn a_nested_file_rules_below_its_own_directory_only() {
    let rules = rules(&[(Layer::GitIgnore, "a/b", "/x\ny\nd/z")]);
    for (path, ignored) in [
        ("a/b/x", true),
        ("a/b/c/x", false),
        ("a/b/c/y", true),
        ("a/b/d/z", true),
        ("a/b/c/d/z", false),
        ("x", false),
        ("a/y", false),
        ("a/bb/y", false),
    ] {
        assert_eq!(
            rules.verdict(&p(path), false).is_ignored(),
            ignored,
            "{path}"
        );
    }
}

#[test]
fn the_directory_of_instep_cannot_be_taken_back_and_others_are_not_reserved() {
    let rules = rules(&[(Layer::InstepIgnore, "", "!.instep\n!/.instep/**")]);
    assert_eq!(by(&rules, ".instep", true), "built-in:1 /.instep");
    assert_eq!(by(&rules, ".instep/index.db", false), "built-in:1 /.instep");
    assert_eq!(by(&rules, "a/.instep", true), "included");
    assert_eq!(by(&rules, ".instep-tmp-1", false), "included");
    assert_eq!(by(&rules, ".instepignore", false), "included");
}

#[test]
fn a_source_found_while_walking_rules_as_if_it_had_been_known() {
    let nested = source(Layer::InstepIgnore, "a", "*.o\n/b/c\n!x.log");
    let known = rules(&[
        (Layer::Config, "", "*.log"),
        (Layer::InstepIgnore, "a", "*.o\n/b/c\n!x.log"),
    ]);
    let base = rules(&[(Layer::Config, "", "*.log")]);
    let name = |n: &'static str| Name::new(n.as_bytes()).unwrap();
    let a = base
        .root()
        .enter(name("a"))
        .with_source(&nested.compile().0);
    assert_eq!(a.path(), &p("a"));
    let b = a.enter(name("b"));
    for (dir, entry, path) in [
        (&a, "y.o", "a/y.o"),
        (&a, "x.log", "a/x.log"),
        (&a, "y.log", "a/y.log"),
        (&b, "c", "a/b/c"),
        (&b, "x.log", "a/b/x.log"),
    ] {
        assert_eq!(
            dir.verdict(name(entry), false),
            known.verdict(&p(path), false),
            "{path}"
        );
    }
    assert!(b.verdict(name("c"), true).is_ignored());
    assert!(b.enter(name("c")).ignored_by().is_some());
    assert!(
        b.enter(name("c"))
            .verdict(name("anything"), false)
            .is_ignored()
    );
}

#[test]
fn a_source_of_an_ancestor_may_come_late_and_one_of_elsewhere_changes_nothing() {
    let name = |n: &'static str| Name::new(n.as_bytes()).unwrap();
    let b = Rules::builder()
        .build()
        .0
        .root()
        .enter(name("a"))
        .enter(name("b"));
    let late = b.with_source(&source(Layer::GitIgnore, "a", "/b/x\n/y").compile().0);
    assert!(late.verdict(name("x"), false).is_ignored());
    assert!(!late.verdict(name("y"), false).is_ignored());
    let elsewhere = b.with_source(&source(Layer::GitIgnore, "c", "*").compile().0);
    assert!(!elsewhere.verdict(name("x"), false).is_ignored());
}

#[test]
fn the_digest_changes_with_the_rules_and_with_nothing_else() {
    let digest = |sources: &[(Layer, &str, &str)]| rules(sources).digest_input();
    let base = digest(&[(Layer::Config, "", "a\nb")]);
    assert_eq!(
        base,
        digest(&[
            (Layer::Config, "", "# why\na \n\nb\r\n"),
            (Layer::GitIgnore, "x", "")
        ])
    );
    for other in [
        digest(&[(Layer::Config, "", "b\na")]),
        digest(&[(Layer::Config, "", "a\n!b")]),
        digest(&[(Layer::Config, "", "a")]),
        digest(&[(Layer::GitIgnore, "", "a\nb")]),
        digest(&[(Layer::Config, "d", "a\nb")]),
        digest(&[(Layer::Config, "", "a"), (Layer::Config, "", "b")]),
        digest(&[]),
    ] {
        assert_ne!(base, other);
    }
    let defaults = Rules::defaults().digest_input();
    let twice = Rules::builder()
        .pack(Pack::OsLitter)
        .pack(Pack::EditorTemporaries)
        .pack(Pack::OsLitter)
        .build()
        .0;
    assert_eq!(defaults, twice.digest_input());
}

#[test]
fn a_hostile_name_is_escaped_in_reports() {
    let rules = rules(&[(Layer::Config, "", "\x1b[[]31m*")]);
    let path = RelPath::new(b"\x1b[31mred").unwrap();
    let Verdict::Ignored(rule) = rules.verdict(&path, false) else {
        panic!("should be ignored")
    };
    assert_eq!(rule.to_string(), "list:1 \\u{1b}[[]31m*");
}
