//! Python binding of the Longhaul uploader SDK.
