//! A conversation over a link of the wire crate: messages in its words, contents over its bulk connection.
//!
//! Owns nothing but the translation. Invariant: what cannot be translated is refused, and ends the conversation.

use std::collections::{HashMap, VecDeque};
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use instep_chunk::manifest::{Run, Tree, list};
use instep_core::id::ContentId;
use instep_core::path::RelPath;
use instep_replica::{Book, Content, Error, ErrorKind, content};
use instep_wire::bulk::Fetch;
use instep_wire::error::LinkError;
use instep_wire::frame::Class;
use instep_wire::link::Link;
use instep_wire::message::{self, Message, Node};
use instep_wire::streams::FetchError;
use instep_wire::want::{Want, Wanted};

use crate::conversation::{Conversation, Line};
use crate::digest::Prefix;
use crate::judged::Wrong;
use crate::manifest::{self, Apart};
use crate::manifests::Manifests;
use crate::observed::{AtHand, Base, Bringer, Observed};
use crate::published::Published;
use crate::say::{Part, Said, Say};
use crate::sending;
use crate::splice::{Ground, Plan, Spliced};

type Result<T, E = Error> = std::result::Result<T, E>;

/// Contents that are read and sent at a time.
const SENDERS: usize = 4;
/// Bytes that are read at a time.
const BLOCK: usize = 128 * 1024;
/// Contents up to this size are asked for before they are needed.
const AHEAD_MAX: u64 = 4 * 1024 * 1024;

/// Where goes what the far end says to people and not to the replica.
pub type Aside = Arc<dyn Fn(String) + Send + Sync>;

/// Holds a conversation over a link until it ends; says why it did.
pub fn hold(link: &Arc<Link>, local: &Arc<Published>, observed: &Arc<Observed>) -> Error {
    hold_with(link, local, observed, Arc::new(|_| ()))
}

/// As [`hold`], with an ear for what is said aside.
pub fn hold_with(
    link: &Arc<Link>,
    local: &Arc<Published>,
    observed: &Arc<Observed>,
    aside: Aside,
) -> Error {
    let manifests = Arc::clone(local.manifests());
    let far = Arc::new(Far {
        aside,
        ..Far::new(Arc::clone(link), manifests)
    });
    let conversation = Conversation {
        line: Arc::clone(&far) as Arc<dyn Line>,
        local: Arc::clone(local),
        observed: Arc::clone(observed),
        bringer: far,
    };
    std::thread::scope(|threads| {
        for _ in 0..SENDERS {
            threads.spawn(|| sending::send_contents(link, local));
        }
        conversation.hold()
    })
}

fn broken(e: LinkError) -> Error {
    let kind = match e {
        LinkError::Refused { .. } | LinkError::WrongKey { .. } | LinkError::Violation(_) => {
            ErrorKind::Denied
        }
        _ => ErrorKind::Gone,
    };
    Error::because(kind, "speak with the far end", e)
}

/// The far end of a link.
struct Far {
    link: Arc<Link>,
    /// What was asked for before it was needed: contents, and the top nodes of manifests.
    whole: Mutex<Ahead>,
    tops: Mutex<Ahead>,
    manifests: Arc<Manifests>,
    /// What came out wrong when it was put together.
    wrong: Arc<Wrong>,
    aside: Aside,
}

/// What will be wanted soon.
#[derive(Default)]
struct Ahead {
    asked: HashMap<ContentId, Fetch>,
    /// What there was no room for yet.
    later: VecDeque<Want>,
}

impl Ahead {
    /// Asks for others instead: what was asked for and not taken is wanted no more.
    fn begin(&mut self, link: &Link, wanted: impl Iterator<Item = Want>) {
        self.asked.clear();
        self.later = wanted.filter(|want| want.size <= AHEAD_MAX).collect();
        self.go_on(link);
    }

    /// As far as that takes no waiting: nobody reads these yet, so that we would wait for ourselves.
    fn go_on(&mut self, link: &Link) {
        while let Some(want) = self.later.front()
            && let Ok(Some(fetch)) = link.try_ask(want.clone())
        {
            self.asked.insert(want.content, fetch);
            self.later.pop_front();
        }
    }

    /// What is needed now.
    fn take(&mut self, link: &Link, content: ContentId) -> Option<Fetch> {
        let taken = self.asked.remove(&content);
        if taken.is_none() {
            self.later.retain(|want| want.content != content);
        }
        self.go_on(link);
        taken
    }
}

fn locked(ahead: &Mutex<Ahead>) -> MutexGuard<'_, Ahead> {
    ahead.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A content in the words of a base, and the base.
type Compared = (Vec<Run>, Arc<Tree>, Box<dyn Content>);

impl Far {
    fn new(link: Arc<Link>, manifests: Arc<Manifests>) -> Self {
        Self {
            link,
            whole: Mutex::default(),
            tops: Mutex::default(),
            manifests,
            wrong: Arc::default(),
            aside: Arc::new(|_| ()),
        }
    }

    /// A content that is put together from what is here, and from the far end.
    fn splice(&self, want: &Want, here: AtHand) -> Result<Spliced, Apart> {
        let AtHand { begun, base } = here;
        let mut ground = Ground {
            link: Arc::clone(&self.link),
            want: want.clone(),
            base: Box::new(content::Bytes(Vec::new())),
            begun,
            wrong: Arc::clone(&self.wrong),
            manifests: Arc::clone(&self.manifests),
        };
        match base.map(|base| self.compare(want, base)) {
            Some(Ok((runs, tree, base))) => {
                ground.base = base;
                let plan = Plan::new(&runs, tree.chunks());
                Ok(Spliced::new(ground, plan, list(&runs, tree.chunks())))
            }
            None | Some(Err(Apart::Nothing)) if ground.begun.is_some() => {
                Ok(Spliced::new(ground, Plan::whole(want.size), Vec::new()))
            }
            None => Err(Apart::Nothing),
            Some(Err(apart)) => Err(apart),
        }
    }

    /// A content in the words of a base.
    fn compare(&self, want: &Want, base: Base) -> Result<Compared, Apart> {
        let Base { id, mut content } = base;
        let ahead = locked(&self.tops).take(&self.link, want.content);
        let asked = match ahead {
            Some(asked) => asked,
            None => manifest::ask(&self.link, want, Vec::new())?,
        };
        // Both ends cut at the same time.
        let tree = self.manifests.of(id, content.as_mut());
        let tree = tree.ok().flatten().ok_or(Apart::Nothing)?;
        let runs = manifest::runs(&self.link, want, asked, &tree)?;
        Ok((runs, tree, content))
    }
}

fn want(path: &RelPath, content: ContentId, size: u64, part: Wanted) -> Want {
    Want {
        content,
        path: path.clone(),
        size,
        part,
        class: Class::of_size(size),
    }
}

impl Line for Far {
    fn say(&self, what: Say) -> Result<()> {
        self.link.send(&to_message(what)).map_err(broken)
    }

    fn hear(&self, patience: Duration) -> Result<Option<Say>> {
        match self.link.recv(patience).map_err(broken)? {
            Some(Message::Status(text)) => {
                (self.aside)(text);
                Ok(None)
            }
            Some(message) => from_message(message),
            None => Ok(None),
        }
    }

    fn end(&self, _: &str) {
        self.link.close("done");
    }
}

impl Bringer for Far {
    fn open(
        &self,
        path: &RelPath,
        content: ContentId,
        size: u64,
    ) -> Result<Option<Box<dyn Content>>> {
        let ahead = locked(&self.whole).take(&self.link, content);
        let want = want(path, content, size, Wanted::From(0));
        let fetch = match ahead {
            Some(fetch) => fetch,
            None => self.link.ask(want.clone()).map_err(broken)?,
        };
        let mut far = FarContent {
            link: Arc::clone(&self.link),
            want,
            fetch,
            first: Vec::new(),
        };
        // Only the answer tells whether it is there.
        let mut first = vec![0; BLOCK.min(usize::try_from(size).unwrap_or(BLOCK))];
        match far.fetch.read(&mut first) {
            Ok(n) => {
                first.truncate(n);
                far.first = first;
                Ok(Some(Box::new(far)))
            }
            Err(e) => match e.get_ref().and_then(|e| e.downcast_ref::<FetchError>()) {
                Some(FetchError::Link(e)) => Err(broken(e.clone())),
                _ => Ok(None),
            },
        }
    }

    fn open_beside(
        &self,
        path: &RelPath,
        content: ContentId,
        size: u64,
        here: AtHand,
    ) -> Result<Option<Box<dyn Content>>> {
        if self.wrong.has(content) {
            return self.open(path, content, size);
        }
        let want = want(path, content, size, Wanted::From(0));
        match self.splice(&want, here) {
            Ok(spliced) => Ok(Some(Box::new(spliced))),
            Err(Apart::Nothing) => self.open(path, content, size),
            Err(Apart::Missing) => Ok(None),
            Err(Apart::Over(e)) => Err(broken(e)),
        }
    }

    fn prefetch(&self, wanted: &[(RelPath, ContentId, u64)]) {
        let wanted = wanted.iter();
        let wanted = wanted.map(|(path, id, size)| want(path, *id, *size, Wanted::From(0)));
        locked(&self.whole).begin(&self.link, wanted);
    }

    fn prefetch_beside(&self, wanted: &[(RelPath, ContentId, u64)]) {
        let right = wanted.iter().filter(|(_, id, _)| !self.wrong.has(*id));
        let top = || Wanted::Nodes(Vec::new());
        let wanted = right.map(|(path, id, size)| want(path, *id, *size, top()));
        locked(&self.tops).begin(&self.link, wanted);
    }
}

/// A content that comes as it is read.
struct FarContent {
    link: Arc<Link>,
    want: Want,
    fetch: Fetch,
    /// Its first bytes, which are read twice: once to learn whether it is there.
    first: Vec<u8>,
}

impl Content for FarContent {
    fn size(&self) -> u64 {
        self.want.size
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let known = usize::try_from(offset)
            .ok()
            .and_then(|at| self.first.get(at..));
        if let Some(rest) = known.filter(|rest| !rest.is_empty()) {
            let n = rest.len().min(buf.len());
            buf[..n].copy_from_slice(&rest[..n]);
            return Ok(n);
        }
        if offset >= self.want.size {
            return Ok(0);
        }
        if self.fetch.reached() != offset {
            let want = self.want.clone();
            let fetch = self.link.ask_after(want, offset);
            self.fetch = fetch.map_err(std::io::Error::other)?;
        }
        self.fetch.read(buf)
    }
}

fn book_number(book: Book) -> u8 {
    match book {
        Book::Share => 1,
        Book::Conflicts => 2,
        Book::Holds => 3,
        Book::Trash => 4,
        Book::Log => 5,
    }
}

fn book(number: u8) -> Option<Book> {
    let all = [
        Book::Share,
        Book::Conflicts,
        Book::Holds,
        Book::Trash,
        Book::Log,
    ];
    all.into_iter().find(|book| book_number(*book) == number)
}

fn to_node(prefix: Prefix) -> Node {
    Node {
        depth: prefix.depth(),
        digits: prefix.digits(),
    }
}

fn from_node(node: Node) -> Result<Prefix> {
    Prefix::new(node.digits, node.depth).ok_or_else(|| refused("a part that nothing is in"))
}

fn refused(what: &str) -> Error {
    Error::new(
        ErrorKind::Denied,
        format!("the far end says what no end says: {what}"),
    )
}

fn to_message(say: Say) -> Message {
    match say {
        Say::Rows(rows) => Message::Rows(
            rows.into_iter()
                .map(|said| message::Row {
                    path: said.path,
                    row: said.row.map(Bytes::from),
                    inline: said.inline.map(Bytes::from),
                })
                .collect(),
        ),
        Say::Same(rows) => Message::Same(rows),
        Say::Digests {
            node,
            children,
            rows,
        } => Message::Digests(message::Digests {
            node: to_node(node),
            children,
            rows,
        }),
        Say::Wanted(parts) => {
            let parts = parts.into_iter().map(|part| message::Part {
                node: to_node(part.node),
                rows: part.rows,
            });
            Message::Wanted(parts.collect())
        }
        Say::Complete(nodes) => Message::Complete(nodes.into_iter().map(to_node).collect()),
        Say::Rest { heard } => Message::Rest { heard },
        Say::Record { book, key, body } => Message::Record(message::Record {
            book: book_number(book),
            key,
            body,
        }),
    }
}

/// What a message says; nothing, where it is not for this conversation.
fn from_message(message: Message) -> Result<Option<Say>> {
    Ok(Some(match message {
        Message::Rows(rows) => Say::Rows(
            rows.into_iter()
                .map(|row| Said {
                    path: row.path,
                    row: row.row.map(Vec::from),
                    inline: row.inline.map(Vec::from),
                })
                .collect(),
        ),
        Message::Same(rows) => Say::Same(rows),
        Message::Digests(digests) => Say::Digests {
            node: from_node(digests.node)?,
            children: digests.children,
            rows: digests.rows,
        },
        Message::Wanted(parts) => {
            let part = |part: message::Part| {
                let node = from_node(part.node)?;
                let rows = part.rows;
                Ok(Part { node, rows })
            };
            Say::Wanted(parts.into_iter().map(part).collect::<Result<_>>()?)
        }
        Message::Complete(nodes) => {
            Say::Complete(nodes.into_iter().map(from_node).collect::<Result<_>>()?)
        }
        Message::Rest { heard } => Say::Rest { heard },
        Message::Record(record) => match book(record.book) {
            Some(book) => Say::Record {
                book,
                key: record.key,
                body: record.body,
            },
            None => return Ok(None),
        },
        Message::Hello(_) => return Err(refused("a greeting in the middle")),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn asking_ahead_for_more_than_may_be_on_their_way_waits_for_nobody() {
        let (near, _far) = Link::pair().unwrap();
        let far = Far::new(Arc::new(near), Arc::default());
        let wanted: Vec<_> = (0..200)
            .map(|n| (RelPath::root(), ContentId([n; 32]), 1 << 20))
            .collect();
        far.prefetch(&wanted);
        let asked = locked(&far.whole).asked.len();
        assert!(asked > 0 && asked < wanted.len(), "{asked}");
        for (_, content, _) in &wanted {
            let taken = locked(&far.whole).take(&far.link, *content);
            assert!(taken.is_some(), "as some are taken others are asked for");
        }
    }
}
