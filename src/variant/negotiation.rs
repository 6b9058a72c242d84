//! Negotiation: what the client named in `Accept`, by its User-Agent or in the query, reduced to an [`super::Offer`].
