//! The words that metrics and log lines use. Every label is one of these enums, so no id, path or token can become one
//! and the number of series is known beforehand.

/// An enum whose values have a word each, and a place in arrays.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word for logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl Word for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn word(self) -> &'static str {
                self.name()
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// An enum that may be a label: few values, a word and an index for each.
pub(super) trait Word: Copy + 'static {
    /// Every value, in the order of their indices.
    const ALL: &'static [Self];

    /// The label's value.
    fn word(self) -> &'static str;

    /// The place in an array over [`Word::ALL`].
    fn index(self) -> usize;
}

words! {
    /// What kind of request it was.
    Route {
        /// GET or HEAD of a user's picture.
        UserPicture = "user_picture",
        /// GET or HEAD of a user's default picture.
        DefaultPicture = "default_picture",
        /// GET or HEAD of a team's icon.
        TeamPicture = "team_picture",
        /// GET or HEAD of a custom emoji.
        EmojiPicture = "emoji_picture",
        /// A request that may change a picture.
        Change = "change",
        /// Any other request.
        Passthrough = "passthrough",
        /// A connection that became a WebSocket.
        Websocket = "websocket",
    }
}

words! {
    /// How a request was answered.
    Outcome {
        /// A variant from memory.
        Hit = "hit",
        /// A variant that another request was already rendering.
        Coalesced = "coalesced",
        /// A variant that was rendered for this request.
        Rendered = "rendered",
        /// The source from memory, untouched, after upstream's 304.
        Revalidated = "revalidated",
        /// The source as upstream just sent it.
        Fetched = "fetched",
        /// A picture that is left alone: not decodable, over a limit, or nothing smaller was found.
        Original = "original",
        /// 304: the client has it.
        NotModified = "not_modified",
        /// Upstream's refusal or error, as it came.
        Relayed = "relayed",
        /// Passed through.
        Passed = "passed",
        /// 400: the query was not understood.
        RefusedQuery = "refused_query",
        /// An error of our own, or an answer that broke off.
        Failed = "failed",
        /// Not at all: the client was gone before (nginx calls it 499).
        Left = "left",
    }
}

words! {
    /// What let a caller see a picture.
    ProofKind {
        /// Upstream's 200 to the request itself.
        Fetched = "fetched",
        /// Upstream's 304 to the request itself.
        Revalidated = "revalidated",
        /// A grant.
        Grant = "grant",
    }
}

words! {
    /// What came of an answer that might have taught who may see whom.
    LessonOutcome {
        /// It was read.
        Learned = "learned",
        /// It was too long, or there was no room for a copy.
        NoRoom = "no_room",
        /// It was not what such an answer is.
        Unreadable = "unreadable",
    }
}

words! {
    /// What was heard in passing.
    Heard {
        /// A user has changed, perhaps the picture.
        User = "user",
        /// A team has changed, perhaps the icon.
        Team = "team",
        /// Somebody's rights have changed.
        Rights = "rights",
        /// A change that could not be made out.
        Unclear = "unclear",
    }
}

words! {
    /// What ended by a request that passed through.
    Ended {
        /// The grants of a session.
        Session = "session",
        /// All grants.
        All = "all",
    }
}

words! {
    /// The first digit of a status code.
    StatusClass {
        /// 1xx; a 101 opens a WebSocket.
        Informational = "1xx",
        /// 2xx
        Success = "2xx",
        /// 3xx
        Redirection = "3xx",
        /// 4xx
        ClientError = "4xx",
        /// 5xx, and what is no status at all.
        ServerError = "5xx",
    }
}

impl StatusClass {
    /// The class of a status code.
    #[must_use]
    pub const fn of(status: http::StatusCode) -> Self {
        match status.as_u16() / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

words! {
    /// Where a render's time goes.
    Stage {
        /// Waiting for a permit.
        Queue = "queue",
        /// Bytes to pixels.
        Decode = "decode",
        /// Pixels to a file.
        ResizeEncode = "resize_encode",
        /// All frames of a moving picture, decoded, resized and encoded.
        Animate = "animate",
    }
}

words! {
    /// What came of the attempt to improve a variant.
    Improvement {
        /// A better encoding took its place.
        Replaced = "replaced",
        /// It is the best already.
        Kept = "kept",
        /// What it was made of is no longer in memory.
        SourceGone = "source_gone",
        /// It was no longer in memory when the better one was found.
        VariantGone = "variant_gone",
        /// A codec refused.
        Failed = "failed",
    }
}

words! {
    /// What upstream was asked for.
    UpstreamKind {
        /// A picture, by us.
        Picture = "picture",
        /// Whatever the client asked for.
        Passthrough = "passthrough",
    }
}

words! {
    /// Why we answered with an error of our own.
    Reason {
        /// The query of a picture was not understood.
        Query = "query",
        /// The path is dangerous to forward.
        Path = "path",
        /// The method is not served.
        Method = "method",
        /// A header field is dangerous to forward.
        Header = "header",
        /// The head of a request did not become whole in time.
        SlowHead = "slow_head",
        /// The head of a request is too long.
        LongHead = "long_head",
        /// What came is no HTTP.
        Malformed = "malformed",
        /// The address of a client has as many connections as it may.
        Crowd = "crowd",
        /// Upstream could not be connected to.
        UpstreamUnreachable = "upstream_unreachable",
        /// Upstream took too long.
        UpstreamTimeout = "upstream_timeout",
        /// Upstream broke off, or did not speak HTTP.
        UpstreamBroken = "upstream_broken",
        /// The client broke its request off.
        ClientAborted = "client_aborted",
        /// The client stopped in the midst of its request.
        ClientStalled = "client_stalled",
        /// The client wanted only what is in memory, and nothing is served without asking upstream.
        OnlyIfCached = "only_if_cached",
        /// Too much at once.
        Overloaded = "overloaded",
        /// The caller's budget, or the client address's, is spent.
        TooMany = "too_many",
        /// Upstream has asked the caller for a pause.
        HeldBack = "held_back",
        /// The request has been here before.
        Loop = "loop",
    }
}

words! {
    /// What went wrong though the request was answered.
    Fault {
        /// A picture that is cut off or damaged.
        BrokenPicture = "broken_picture",
        /// A picture of a kind that is not decoded.
        UnsupportedPicture = "unsupported_picture",
        /// A picture over a limit.
        OverLimit = "over_limit",
        /// A codec panicked.
        DecoderPanic = "decoder_panic",
        /// Other sources took all the room in memory.
        NoRoom = "no_room",
        /// The render queue was full.
        QueueFull = "queue_full",
        /// A render waited too long.
        QueueTimeout = "queue_timeout",
        /// Upstream was asked once more.
        Retried = "retried",
        /// Upstream said 304 of a source that was evicted meanwhile.
        EvictedRefetch = "evicted_refetch",
        /// Validator and bytes did not change together.
        ValidatorMismatch = "validator_mismatch",
        /// Upstream's answer broke off on its way to the client.
        AnswerBroken = "answer_broken",
        /// Upstream's answer paused for too long on its way to the client.
        AnswerStalled = "answer_stalled",
    }
}

words! {
    /// What upstream said to a request that may change a picture.
    ChangeOutcome {
        /// 2xx.
        Accepted = "accepted",
        /// 4xx, 501 or a redirect for good; or it was never asked.
        Refused = "refused",
        /// Anything else, or no answer.
        Unknown = "unknown",
    }
}

words! {
    /// A cache.
    CacheName {
        /// Upstream's bytes.
        Sources = "sources",
        /// Encoded pictures.
        Variants = "variants",
        /// Decoded pictures.
        Pixels = "pixels",
    }
}

impl Word for crate::variant::Format {
    const ALL: &'static [Self] = &[Self::Avif, Self::Webp, Self::Png, Self::Jpeg];

    fn word(self) -> &'static str {
        self.name()
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl Word for crate::identity::PictureKind {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }

    fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn check<W: Word>() {
        let mut words = HashSet::new();
        for (place, value) in W::ALL.iter().enumerate() {
            let word = value.word();
            assert_eq!(value.index(), place, "{word}");
            assert!(words.insert(word), "{word} twice");
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{word}");
        }
    }

    #[test]
    fn every_value_has_its_place_and_its_word() {
        check::<Route>();
        check::<Outcome>();
        check::<ProofKind>();
        check::<LessonOutcome>();
        check::<Heard>();
        check::<Ended>();
        check::<StatusClass>();
        check::<Stage>();
        check::<UpstreamKind>();
        check::<Reason>();
        check::<Fault>();
        check::<ChangeOutcome>();
        check::<CacheName>();
        check::<crate::variant::Format>();
        check::<crate::identity::PictureKind>();
    }

    #[test]
    fn a_status_has_a_class() {
        for (status, class) in [(101, "1xx"), (200, "2xx"), (304, "3xx"), (404, "4xx"), (508, "5xx"), (999, "5xx")] {
            let status = http::StatusCode::from_u16(status).expect("three digits");
            assert_eq!(StatusClass::of(status).name(), class);
        }
    }
}
