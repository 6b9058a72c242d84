//! The query of a picture: parsed once, clamped and canonical. Equal pictures get equal transforms.
