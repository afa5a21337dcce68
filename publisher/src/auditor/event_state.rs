//! What is known of one event, in four bytes.
//!
//! An event has at most two contents: that of its first delivery, 0, and that of
//! its conflicts, 1. A flag has a bit for each.

pub(super) const SENT: u16 = 0b01;
pub(super) const ACCEPTED: u16 = 0b01 << 2;
pub(super) const DUPLICATE: u16 = 0b01 << 4;
pub(super) const CONFLICT: u16 = 0b01 << 6;
/// A delivery had no answer, or an attempt without one: it may be stored or not.
pub(super) const INDETERMINATE: u16 = 0b01 << 8;
pub(super) const STORED: u16 = 0b01 << 10;

/// So many deliveries under way that they are not counted any more.
const UNDER_WAY_MANY: u8 = u8::MAX;

/// What is known of one event, of its first content and of the other.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EventState {
    flags: u16,
    /// Deliveries that are not settled.
    under_way: [u8; 2],
}

impl EventState {
    /// Notes that a delivery of this content is about to be sent.
    pub(super) fn begin(&mut self, content: usize) {
        self.set(SENT, content);
        self.under_way[content] = self.under_way[content].saturating_add(1);
    }

    /// Notes that one is settled.
    pub(super) fn end(&mut self, content: usize) {
        if self.under_way[content] < UNDER_WAY_MANY {
            self.under_way[content] = self.under_way[content].saturating_sub(1);
        }
    }

    pub(super) fn set(&mut self, flag: u16, content: usize) {
        self.flags |= flag << content;
    }

    pub(super) fn has(self, flag: u16, content: usize) -> bool {
        self.flags & (flag << content) != 0
    }

    pub(super) fn has_any(self, flag: u16) -> bool {
        self.flags & (flag * 0b11) != 0
    }

    /// Whether a delivery of this content may have reached the store, by all
    /// replies.
    pub(super) fn may_have_arrived(self, content: usize) -> bool {
        self.has(ACCEPTED, content) || self.is_indeterminate(content)
    }

    fn is_indeterminate(self, content: usize) -> bool {
        self.has(INDETERMINATE, content) || self.under_way[content] > 0
    }

    /// Whether this content can be the stored one, by all replies.
    pub(super) fn can_be_stored(self, content: usize, fresh: bool) -> bool {
        let other = 1 - content;
        (self.may_have_arrived(content) || !fresh)
            && !self.has(ACCEPTED, other)
            && !self.has(DUPLICATE, other)
            && !self.has(CONFLICT, content)
    }

    /// Whether none can be stored, by all replies.
    pub(super) fn can_be_absent(self) -> bool {
        !self.has_any(ACCEPTED) && !self.has_any(DUPLICATE) && !self.has_any(CONFLICT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_takes_four_bytes() {
        assert_eq!(size_of::<EventState>(), 4);
    }
}
