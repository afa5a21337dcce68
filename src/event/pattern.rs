//! Topics that are alike, and those that share a limit.

/// Topics that are alike: `*` stands for any characters, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern(String);

impl TopicPattern {
    /// The topics that `text` describes.
    pub fn new(text: String) -> Self {
        TopicPattern(text)
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every topic is one of them.
    pub fn is_any(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|one| one == b'*')
    }

    /// Whether `topic` is one of them.
    pub fn matches(&self, topic: &str) -> bool {
        let Some((first, others)) = self.0.split_once('*') else { return self.0 == topic };
        let Some(mut rest) = topic.strip_prefix(first) else { return false };
        let (between, last) = others.rsplit_once('*').unwrap_or(("", others));
        // The first place where a part is found leaves the most for those after it.
        for part in between.split('*') {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }
}

/// Topics that share a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicGroup {
    /// Those of this pattern; all of them when there is none.
    pub of: Option<TopicPattern>,
    /// But for these.
    pub but: Vec<TopicPattern>,
}

impl TopicGroup {
    /// Whether every topic belongs to it.
    pub fn is_all(&self) -> bool {
        self.of.as_ref().is_none_or(TopicPattern::is_any) && self.but.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_topics() {
        for (pattern, topic, expected) in [
            ("shop", "shop", true),
            ("shop", "shops", false),
            ("shop.*", "shop.", true),
            ("shop.*", "shop.a.b", true),
            ("shop.*", "shop", false),
            ("*.log", "a.log", true),
            ("*.log", "a.logs", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "ac", false),
            ("a*bc*c", "abc", false),
            ("a*a", "a", false),
            ("é*", "éa", true),
            ("a**b", "ab", true),
            ("a.c", "abc", false),
        ] {
            let pattern = TopicPattern::new(pattern.to_owned());
            assert_eq!(pattern.matches(topic), expected, "{pattern:?} {topic}");
        }
    }
}
