//! The communicator: a group of ranks and the operations among them.
