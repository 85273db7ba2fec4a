//! The ignore language: parsed, asked about paths, and walked.

use instep_core::filter::{Layer, RuleSource, Rules};
use instep_core::limits::RULE_SOURCE_BYTES_MAX;
use instep_core::path::RelPath;

/// Rules up to a zero byte, then paths, each up to the next.
pub(super) fn rules(bytes: &[u8]) -> String {
    let mut parts = bytes.split(|b| *b == 0);
    let text = parts.next().unwrap_or_default();
    let source = RuleSource {
        name: "fuzz".into(),
        layer: Layer::Config,
        base: RelPath::root(),
        text: text.to_vec(),
    };
    let (rules, problems) = Rules::builder().add_source(source.clone()).build();
    let lines = text.split(|b| *b == b'\n').count();
    assert!(problems.len() <= lines + 1, "more problems than lines");
    problems
        .iter()
        .for_each(|p| super::assert_harmless(&p.to_string()));
    let (parsed, _) = source.compile();
    let (again, _) = Rules::builder().add_parsed(parsed).build();
    assert_eq!(rules.digest_input(), again.digest_input());
    let mut ignored = 0;
    for path in parts.take(16).filter_map(|p| RelPath::new(p).ok()) {
        for is_dir in [false, true] {
            let verdict = rules.verdict(&path, is_dir);
            assert_eq!(verdict, walked(&rules, &path, is_dir), "{path}");
            ignored += usize::from(verdict.is_ignored());
            if let Some(rule) = rules.last_match(&path, is_dir) {
                super::assert_harmless(&rule.to_string());
                assert!(rule.line() as usize <= lines);
            }
        }
    }
    assert!(text.len() > RULE_SOURCE_BYTES_MAX || lines > 0);
    format!("{} problems, {ignored} ignored", problems.len().min(3))
}

/// What a walk finds out, directory by directory.
fn walked(rules: &Rules, path: &RelPath, is_dir: bool) -> instep_core::filter::Verdict {
    let Some((parent, name)) = path.split() else {
        return rules.verdict(path, is_dir);
    };
    let above = parent.components();
    let dir = above.fold(rules.root(), |dir, name| dir.enter(name));
    dir.verdict(name, is_dir)
}

/// Rules to begin with.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 8] = [
        b"*.o\n!keep.o\n/build/\n\0a.o\0keep.o\0build/x",
        b"**/x/**\na/**/b\n\0x/y\0a/b\0a/c/d/b",
        b"[a-z0-9]*\n[!x]?\n[[:alpha:]]\n\0q\0x1",
        b"# comment\n\\#real\n\\!bang\ntrailing\\ \n\0#real\0!bang",
        b"[\n[]\n[]]\n[a-\n[z-a]\n\\\n\0]\0a",
        b"*a*a*a*a*a*a*a*b\n\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        b"**/**/**/**/**/a\n\0x/x/x/x/x/x/a",
        b"/.instep\n!.instep/\n\0.instep\0.instep/marker.json",
    ];
    texts.into_iter().map(<[u8]>::to_vec).collect()
}
