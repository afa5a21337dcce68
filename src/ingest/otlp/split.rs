//! A request as the records in it, before any of them is read.

use crate::ingest::format::BodyError;

/// What stands before records: a resource, or an instrumentation scope. Both are
/// pieces of the body in its own form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head<'a> {
    /// The message.
    pub(super) message: Option<&'a [u8]>,
    /// The string beside it.
    pub(super) schema_url: Option<&'a [u8]>,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot<'a> {
    /// The message.
    pub(super) record: &'a [u8],
    /// Its resource and its scope among those of the request.
    pub(super) resource: usize,
    pub(super) scope: usize,
}

/// The records of a request. Resources and scopes without any are not kept: of them
/// there could be millions.
#[derive(Debug)]
pub(super) struct Split<'a> {
    pub(super) resources: Vec<Head<'a>>,
    pub(super) scopes: Vec<Head<'a>>,
    pub(super) records: Vec<Slot<'a>>,
    records_max: usize,
    /// There was one more.
    pub(super) are_too_many: bool,
}

impl<'a> Split<'a> {
    /// A request without records, which may have so many.
    pub(super) fn new(records_max: usize) -> Self {
        let (resources, scopes, records) = (Vec::new(), Vec::new(), Vec::new());
        Split { resources, scopes, records, records_max, are_too_many: false }
    }

    /// Begins with the records of another resource.
    pub(super) fn open_resource(&mut self, head: Head<'a>) {
        self.resources.push(head);
    }

    /// Begins with those of another scope.
    pub(super) fn open_scope(&mut self, head: Head<'a>) {
        self.scopes.push(head);
    }

    /// Takes another record.
    ///
    /// # Errors
    ///
    /// When there may be no more.
    pub(super) fn push(&mut self, record: &'a [u8]) -> Result<(), BodyError> {
        self.are_too_many = self.records.len() == self.records_max;
        if self.are_too_many {
            return Err(BodyError::TooManyEvents);
        }
        let (resource, scope) = (self.resources.len() - 1, self.scopes.len() - 1);
        self.records.push(Slot { record, resource, scope });
        Ok(())
    }

    /// There are no more records of this scope; `head` is what it is known by.
    pub(super) fn close_scope(&mut self, head: Head<'a>) {
        let last = self.scopes.len() - 1;
        if self.records.last().is_some_and(|slot| slot.scope == last) {
            self.scopes[last] = head;
        } else {
            self.scopes.pop();
        }
    }

    /// The same of a resource.
    pub(super) fn close_resource(&mut self, head: Head<'a>) {
        let last = self.resources.len() - 1;
        if self.records.last().is_some_and(|slot| slot.resource == last) {
            self.resources[last] = head;
        } else {
            self.resources.pop();
        }
    }
}
