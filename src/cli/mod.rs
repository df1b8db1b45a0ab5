//! What people type: the verbs of the kubectl plugin, and the writing of `crds/`.

pub mod crds;
