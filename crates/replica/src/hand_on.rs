//! Methods of a replica that wraps another and leaves them as they are: a line to it, a witness, a flaw.
//!
//! Owns the one list of how a call is handed on. Invariant: nothing is added or left out on the way.

/// In an `impl Replica`: hands the named methods on to the replica in a field, which may be behind a pointer.
///
/// `instep_replica::hand_on!(inner: id actor share);`
#[macro_export]
macro_rules! hand_on {
    (@ $inner:ident id) => {
        fn id(&self) -> ::instep_core::id::ReplicaId {
            self.$inner.id()
        }
    };
    (@ $inner:ident actor) => {
        fn actor(&self) -> ::instep_core::id::ActorId {
            self.$inner.actor()
        }
    };
    (@ $inner:ident share) => {
        fn share(&self) -> ::instep_core::id::ShareId {
            self.$inner.share()
        }
    };
    (@ $inner:ident describe) => {
        fn describe(&self) -> $crate::Description {
            self.$inner.describe()
        }
    };
    (@ $inner:ident capabilities) => {
        fn capabilities(&self) -> &$crate::Capabilities {
            self.$inner.capabilities()
        }
    };
    (@ $inner:ident guard) => {
        fn guard(&self) -> $crate::Result<()> {
            self.$inner.guard()
        }
    };
    (@ $inner:ident is_rejoining) => {
        fn is_rejoining(&self) -> bool {
            self.$inner.is_rejoining()
        }
    };
    (@ $inner:ident watch) => {
        fn watch(
            &self,
            waker: $crate::Waker,
        ) -> $crate::Result<Vec<::instep_core::plan::Problem>> {
            self.$inner.watch(waker)
        }
    };
    (@ $inner:ident take_hints) => {
        fn take_hints(&self) -> $crate::HintSet {
            self.$inner.take_hints()
        }
    };
    (@ $inner:ident look) => {
        fn look(&self, scope: &$crate::Scope) -> $crate::Result<$crate::Look> {
            self.$inner.look(scope)
        }
    };
    (@ $inner:ident record) => {
        fn record(
            &self,
            look: &$crate::Look,
            share: &$crate::ShareState,
        ) -> $crate::Result<Vec<::instep_core::path::RelPath>> {
            self.$inner.record(look, share)
        }
    };
    (@ $inner:ident sums) => {
        fn sums(&self) -> Option<$crate::Totals> {
            self.$inner.sums()
        }
    };
    (@ $inner:ident row) => {
        fn row(
            &self,
            path: &::instep_core::path::RelPath,
        ) -> $crate::Result<Option<::instep_core::row::Row>> {
            self.$inner.row(path)
        }
    };
    (@ $inner:ident children) => {
        fn children(
            &self,
            dir: &::instep_core::path::RelPath,
            visit: $crate::RowVisitor<'_>,
        ) -> $crate::Result<()> {
            self.$inner.children(dir, visit)
        }
    };
    (@ $inner:ident subtree) => {
        fn subtree(
            &self,
            dir: &::instep_core::path::RelPath,
            visit: $crate::RowVisitor<'_>,
        ) -> $crate::Result<()> {
            self.$inner.subtree(dir, visit)
        }
    };
    (@ $inner:ident open) => {
        fn open(
            &self,
            path: &::instep_core::path::RelPath,
            content: ::instep_core::id::ContentId,
        ) -> $crate::Result<Option<Box<dyn $crate::Content>>> {
            self.$inner.open(path, content)
        }
    };
    (@ $inner:ident sample) => {
        fn sample(
            &self,
            seed: u64,
            count: usize,
        ) -> $crate::Result<Vec<::instep_core::path::RelPath>> {
            self.$inner.sample(seed, count)
        }
    };
    (@ $inner:ident stage) => {
        fn stage(
            &self,
            path: &::instep_core::path::RelPath,
            content: ::instep_core::id::ContentId,
            from: &mut dyn $crate::Content,
        ) -> $crate::Result<::instep_core::plan::Outcome> {
            self.$inner.stage(path, content, from)
        }
    };
    (@ $inner:ident begun) => {
        fn begun(
            &self,
            content: ::instep_core::id::ContentId,
        ) -> Option<Box<dyn $crate::Content>> {
            self.$inner.begun(content)
        }
    };
    (@ $inner:ident is_staged) => {
        fn is_staged(&self, content: ::instep_core::id::ContentId) -> bool {
            self.$inner.is_staged(content)
        }
    };
    (@ $inner:ident take_problems) => {
        fn take_problems(&self) -> Vec<::instep_core::plan::Problem> {
            self.$inner.take_problems()
        }
    };
    (@ $inner:ident adopt_move) => {
        fn adopt_move(
            &self,
            from: &::instep_core::path::RelPath,
            to: &::instep_core::path::RelPath,
            entries: &[(::instep_core::path::RelPath, ::instep_core::row::Row)],
        ) -> $crate::Result<()> {
            self.$inner.adopt_move(from, to, entries)
        }
    };
    (@ $inner:ident mint) => {
        fn mint(&self) -> $crate::Result<::instep_core::id::Dot> {
            self.$inner.mint()
        }
    };
    (@ $inner:ident restore) => {
        fn restore(
            &self,
            key: &str,
            to: Option<&::instep_core::path::RelPath>,
        ) -> $crate::Result<::instep_core::path::RelPath> {
            self.$inner.restore(key, to)
        }
    };
    (@ $inner:ident purge) => {
        fn purge(&self, before_ns: i64) -> $crate::Result<u64> {
            self.$inner.purge(before_ns)
        }
    };
    (@ $inner:ident barrier) => {
        fn barrier(&self) -> $crate::Result<()> {
            self.$inner.barrier()
        }
    };
    (@ $inner:ident read_record) => {
        fn read_record(
            &self,
            book: $crate::Book,
            key: &str,
        ) -> $crate::Result<Option<String>> {
            self.$inner.read_record(book, key)
        }
    };
    (@ $inner:ident write_record) => {
        fn write_record(
            &self,
            book: $crate::Book,
            key: &str,
            body: Option<&str>,
        ) -> $crate::Result<()> {
            self.$inner.write_record(book, key, body)
        }
    };
    (@ $inner:ident records) => {
        fn records(&self, book: $crate::Book) -> $crate::Result<Vec<(String, String)>> {
            self.$inner.records(book)
        }
    };
    ($inner:ident: $($method:ident)*) => {
        $( $crate::hand_on!(@ $inner $method); )*
    };
}
