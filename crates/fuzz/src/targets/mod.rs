//! The targets, and the readers of the product that each of them reads with.

mod acts;
mod chunks;
mod front;
mod local;
mod memory;
mod records;
mod rules;
mod store;
mod vocabulary;
mod wire;

use crate::Target;

/// What most targets need.
const PLAIN: Target = Target {
    name: "",
    reads: &[],
    read: |_| String::new(),
    seeds: Vec::new,
    words: &[],
    memory: (1024, 64 << 10),
    longest: 4096,
};

/// Pieces of JSON that mean something.
const JSON: &[&str] = &[
    "null",
    "true",
    "-1",
    "1e999",
    "18446744073709551616",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\u0000",
    "\\ud800",
    "612f62",
    "2e2e",
    ":",
    ",",
];

/// Every target, and with it every reader of bytes and text of others.
pub const TARGETS: &[Target] = &[
    Target {
        name: "entry",
        reads: &["core::codec::entry", "core::entry::Entry::from_parts"],
        read: vocabulary::entry,
        seeds: vocabulary::entry_seeds,
        ..PLAIN
    },
    Target {
        name: "attributes",
        reads: &[
            "core::codec::attributes",
            "core::codec::version",
            "core::attributes::Account::new",
        ],
        read: vocabulary::attributes,
        seeds: vocabulary::attributes_seeds,
        ..PLAIN
    },
    Target {
        name: "message",
        reads: &["wire::message::Message::from_bytes"],
        read: wire::message,
        seeds: wire::message_seeds,
        words: &["../", ".instep"],
        // One item for each two bytes, up to the most that a message may have.
        memory: (2048, 64 << 10),
        ..PLAIN
    },
    Target {
        name: "frames",
        reads: &["wire::streams::hear"],
        read: wire::frames,
        seeds: wire::frames_seeds,
        ..PLAIN
    },
    Target {
        name: "manifest",
        reads: &[
            "chunk::manifest::Descent::new",
            "chunk::manifest::Descent::take",
        ],
        read: chunks::manifest,
        seeds: chunks::manifest_seeds,
        longest: 16 << 10,
        ..PLAIN
    },
    Target {
        name: "delta",
        reads: &["chunk::delta::patch"],
        read: chunks::delta,
        seeds: chunks::delta_seeds,
        ..PLAIN
    },
    Target {
        name: "typed",
        reads: &[
            "wire::identity::DeviceId::from_str",
            "wire::pairing::Code::from_str",
        ],
        read: wire::typed,
        seeds: wire::typed_seeds,
        words: &["-", "7-", "A"],
        ..PLAIN
    },
    Target {
        name: "merge",
        reads: &["core::entry::Entry::merge"],
        read: vocabulary::merge,
        seeds: vocabulary::any_seeds,
        ..PLAIN
    },
    Target {
        name: "plan",
        reads: &["core::reconcile::reconcile", "core::view::view"],
        read: vocabulary::plan,
        seeds: vocabulary::any_seeds,
        ..PLAIN
    },
    Target {
        name: "path",
        reads: &[
            "core::path::RelPath::new",
            "core::path::RelPath::from_peer",
            "core::path::Name::new",
            "core::path::escape",
        ],
        read: vocabulary::path,
        seeds: vocabulary::path_seeds,
        words: &["/", "..", ".instep", "\u{202e}", "\u{1b}"],
        longest: 70 << 10,
        ..PLAIN
    },
    Target {
        name: "identity",
        reads: &["core::id::from_str"],
        read: vocabulary::identity,
        seeds: vocabulary::identity_seeds,
        words: &[":", "18446744073709551616", "+1"],
        ..PLAIN
    },
    Target {
        name: "conflict_name",
        reads: &["core::conflict::copy_path"],
        read: vocabulary::conflict_name,
        seeds: vocabulary::any_seeds,
        words: &[".conflict-20240301-aabbcc-ababab", ".", "/"],
        ..PLAIN
    },
    Target {
        name: "link",
        reads: &["core::reconcile::is_safe_link"],
        read: vocabulary::link,
        seeds: vocabulary::path_seeds,
        words: &["../", "./", "//", "/"],
        ..PLAIN
    },
    Target {
        name: "group",
        reads: &[
            "core::group::database",
            "core::group::git_dir",
            "core::group::is_git_object",
        ],
        read: vocabulary::group,
        seeds: vocabulary::path_seeds,
        words: &["-wal", "-journal", "-shm", "/.git/", "objects"],
        ..PLAIN
    },
    Target {
        name: "time",
        reads: &["core::time::effective_time", "core::conflict::civil"],
        read: vocabulary::time,
        seeds: vocabulary::any_seeds,
        ..PLAIN
    },
    Target {
        name: "rules",
        reads: &[
            "core::filter::source::RuleSource::compile",
            "core::filter::rules::verdict",
            "core::filter::glob::Glob",
        ],
        read: rules::rules,
        seeds: rules::seeds,
        words: &[
            "**/",
            "*",
            "?",
            "[",
            "]",
            "[!",
            "[[:alpha:]]",
            "\\",
            "!",
            "/",
            "\n",
            "\u{0}",
        ],
        memory: (16 << 10, 1 << 20),
        longest: 2048,
    },
    Target {
        name: "row",
        reads: &["store::row_codec::row"],
        read: store::row,
        seeds: store::row_seeds,
        ..PLAIN
    },
    Target {
        name: "index_file",
        reads: &[
            "store::sqlite::SqliteStore::open",
            "store::sqlite::SqliteStore::check",
            "store::seal::open",
        ],
        read: store::index_file,
        seeds: store::damage_seeds,
        memory: (4096, 8 << 20),
        longest: 512,
        ..PLAIN
    },
    Target {
        name: "record",
        reads: &[
            "replica::records::ConflictRecord",
            "replica::records::HoldRecord",
            "replica::records::TrashRecord",
            "replica::records::LogRecord",
            "replica::records::DamageRecord",
            "replica::records::path_from_hex",
        ],
        read: records::record,
        seeds: records::record_seeds,
        words: JSON,
        ..PLAIN
    },
    Target {
        name: "share",
        reads: &["replica::records::ShareRecord"],
        read: records::share,
        seeds: records::share_seeds,
        words: JSON,
        ..PLAIN
    },
    Target {
        name: "mint",
        reads: &["replica::mint::after"],
        read: acts::mint,
        seeds: vocabulary::any_seeds,
        ..PLAIN
    },
    Target {
        name: "memory",
        reads: &["replica::memory::MemoryReplica"],
        read: memory::memory,
        seeds: acts::seeds,
        words: &[".instep", "{", "}"],
        memory: (16 << 10, 8 << 20),
        longest: 2048,
    },
    Target {
        name: "machine",
        reads: &["local::replica::LocalReplica"],
        read: local::machine,
        seeds: acts::seeds,
        words: &[".instep", "{", "}"],
        memory: (64 << 10, 32 << 20),
        longest: 1024,
    },
    Target {
        name: "index_records",
        reads: &[
            "local::index::Index::open",
            "local::recover",
            "local::trash::records",
        ],
        read: local::index_records,
        seeds: local::index_seeds,
        words: JSON,
        memory: (64 << 10, 32 << 20),
        longest: 1024,
    },
    Target {
        name: "intent",
        reads: &["local::recover::intent::decode"],
        read: local::intent,
        seeds: local::intent_seeds,
        memory: (1024, 1 << 20),
        ..PLAIN
    },
    Target {
        name: "marker",
        reads: &["local::root::marker::Marker"],
        read: local::marker,
        seeds: local::marker_seeds,
        words: JSON,
        ..PLAIN
    },
    Target {
        name: "root_files",
        reads: &[
            "local::root::evidence::Registered",
            "local::root::lock::holder",
            "local::root::inspect",
        ],
        read: local::root_files,
        seeds: local::root_seeds,
        words: JSON,
        memory: (4096, 1 << 20),
        ..PLAIN
    },
    Target {
        name: "master_list",
        reads: &["local::rules::Rules::new"],
        read: local::master_list,
        seeds: local::master_seeds,
        words: &["@", "\n", "!", "["],
        memory: (16 << 10, 1 << 20),
        longest: 2048,
    },
    Target {
        name: "configuration",
        reads: &["cli::config::Config::parse"],
        read: front::configuration,
        seeds: front::configuration_seeds,
        words: &[
            "[",
            "]",
            "=",
            "\"",
            "\"\"\"",
            "defaults",
            "ignore",
            "@",
            "1979-05-27",
            "0x",
            "nan",
            "\n",
        ],
        memory: (4096, 256 << 10),
        ..PLAIN
    },
    Target {
        name: "folder",
        reads: &["cli::endpoint::parse"],
        read: front::folder,
        seeds: front::folder_seeds,
        words: &["=", ":", "~", "/", "newest"],
        ..PLAIN
    },
    Target {
        name: "duration",
        reads: &["cli::quantity::duration"],
        read: front::duration,
        seeds: front::duration_seeds,
        words: &["ms", "min", ".", "e", "9999999999"],
        ..PLAIN
    },
    Target {
        name: "arguments",
        reads: &["cli::usage::parse"],
        read: front::arguments,
        seeds: front::arguments_seeds,
        words: &[
            "--", "-", "=", "\u{0}", "--json", "--keep", "help", "--days",
        ],
        memory: (64 << 10, 32 << 20),
        longest: 512,
    },
    Target {
        name: "request",
        reads: &["cli::control::protocol::command"],
        read: front::request,
        seeds: front::request_seeds,
        words: JSON,
        ..PLAIN
    },
    Target {
        name: "answer",
        reads: &["cli::control::protocol::answer"],
        read: front::answer,
        seeds: front::answer_seeds,
        words: JSON,
        ..PLAIN
    },
    Target {
        name: "far",
        reads: &["cli::far::request::Ask", "cli::far::request::Tell"],
        read: front::far,
        seeds: front::far_seeds,
        words: JSON,
        ..PLAIN
    },
    Target {
        name: "hub",
        reads: &[
            "cli::hub::order::Joining",
            "cli::hub::order::Joined",
            "cli::hub::rights::Book",
            "cli::far::hubs::Known",
        ],
        read: front::hub,
        seeds: front::hub_seeds,
        words: JSON,
        ..PLAIN
    },
    Target {
        name: "code",
        reads: &["cli::explain::page", "cli::records::short_id"],
        read: front::code,
        seeds: front::code_seeds,
        words: &["E", ":"],
        ..PLAIN
    },
    Target {
        name: "shown",
        reads: &[
            "cli::error::Failure::render",
            "cli::quantity",
            "cli::ui::json::put_path",
        ],
        read: front::shown,
        seeds: vocabulary::path_seeds,
        words: &[
            "\u{202e}",
            "\u{1b}[2J",
            "\u{61c}",
            "\u{2028}",
            "\u{85}",
            "\r",
        ],
        ..PLAIN
    },
];

/// What is shown to people contains nothing that acts on a terminal, or turns what stands beside it round.
fn assert_harmless(text: &str) {
    let acts = |c: char| {
        c.is_control()
            || matches!(
                c,
                '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            )
    };
    assert!(!text.chars().any(acts), "it acts on a terminal: {text:?}");
}
