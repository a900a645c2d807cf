//! The numbers of the header are those of the Rust types.

use super::{communicator, config, datatype, error, op, status};
use crate::datatype::{ALL_DATATYPES, Datatype};
use crate::error::{ALL_KINDS, ErrorKind};
use crate::operation::Operation;

#[test]
fn status_codes_and_their_names() {
    for kind in ALL_KINDS {
        assert_eq!(status::name(kind.status()).to_str(), Ok(kind.name()));
    }
    assert_eq!(status::name(0).to_str(), Ok("FMI_OK"));
    for unknown in [1, -26, i32::MIN, i32::MAX] {
        assert_eq!(status::name(unknown).to_str(), Ok("FMI_UNKNOWN_STATUS"));
    }
    let constants = [
        (status::FMI_ERR_ARG, ErrorKind::Arg),
        (status::FMI_ERR_NULL, ErrorKind::Null),
        (status::FMI_ERR_CONFIG, ErrorKind::Config),
        (status::FMI_ERR_UNSUPPORTED, ErrorKind::Unsupported),
        (status::FMI_ERR_NOMEM, ErrorKind::NoMem),
        (status::FMI_ERR_BUSY, ErrorKind::Busy),
        (status::FMI_ERR_REENTRANT, ErrorKind::Reentrant),
        (status::FMI_ERR_FORKED, ErrorKind::Forked),
        (status::FMI_ERR_CLOSED, ErrorKind::Closed),
        (status::FMI_ERR_TIMEOUT, ErrorKind::Timeout),
        (status::FMI_ERR_INTERRUPTED, ErrorKind::Interrupted),
        (status::FMI_ERR_CANCELLED, ErrorKind::Cancelled),
        (status::FMI_ERR_SIZE_MISMATCH, ErrorKind::SizeMismatch),
        (status::FMI_ERR_MISMATCH, ErrorKind::Mismatch),
        (status::FMI_ERR_PEER_LOST, ErrorKind::PeerLost),
        (status::FMI_ERR_PEER_LEFT, ErrorKind::PeerLeft),
        (status::FMI_ERR_ABORTED, ErrorKind::Aborted),
        (status::FMI_ERR_POISONED, ErrorKind::Poisoned),
        (status::FMI_ERR_CONNECT, ErrorKind::Connect),
        (status::FMI_ERR_RANK_TAKEN, ErrorKind::RankTaken),
        (status::FMI_ERR_AUTH, ErrorKind::Auth),
        (status::FMI_ERR_PROTOCOL, ErrorKind::Protocol),
        (status::FMI_ERR_IO, ErrorKind::Io),
        (status::FMI_ERR_CALLBACK, ErrorKind::Callback),
        (status::FMI_ERR_INTERNAL, ErrorKind::Internal),
    ];
    assert_eq!(constants.map(|(_, kind)| kind), ALL_KINDS);
    assert!(constants.iter().all(|(number, kind)| *number == kind.status()));
}

#[test]
fn datatypes() {
    let constants = [
        datatype::FMI_BYTE,
        datatype::FMI_INT8,
        datatype::FMI_INT16,
        datatype::FMI_INT32,
        datatype::FMI_INT64,
        datatype::FMI_UINT8,
        datatype::FMI_UINT16,
        datatype::FMI_UINT32,
        datatype::FMI_UINT64,
        datatype::FMI_FLOAT,
        datatype::FMI_DOUBLE,
    ];
    assert_eq!(constants.map(|number| Datatype::from_code(number).unwrap()), ALL_DATATYPES);
}

#[test]
fn operations() {
    for (number, operation) in [
        (error::FMI_OPERATION_SEND, Operation::Send),
        (error::FMI_OPERATION_RECV, Operation::Recv),
        (error::FMI_OPERATION_SENDRECV, Operation::Sendrecv),
        (error::FMI_OPERATION_BCAST, Operation::Bcast),
        (error::FMI_OPERATION_BARRIER, Operation::Barrier),
        (error::FMI_OPERATION_GATHER, Operation::Gather),
        (error::FMI_OPERATION_SCATTER, Operation::Scatter),
        (error::FMI_OPERATION_REDUCE, Operation::Reduce),
        (error::FMI_OPERATION_ALLREDUCE, Operation::Allreduce),
        (error::FMI_OPERATION_SCAN, Operation::Scan),
        (error::FMI_OPERATION_CREATE, Operation::Create),
        (error::FMI_OPERATION_CLOSE, Operation::Close),
    ] {
        assert_eq!(number, operation as i32);
    }
}

#[test]
fn built_in_operations_hints_and_levels() {
    use crate::op::{BuiltinOp, Op};
    for number in op::FMI_SUM..=op::FMI_BXOR {
        let Ok(Op::Builtin(builtin)) = op::resolve(number) else { panic!("{number} is built in") };
        assert_eq!(builtin as i32, number);
    }
    assert_eq!(BuiltinOp::Bxor as i32, op::FMI_BXOR);
    for unknown in [0, -1, op::FMI_BXOR + 1, 255, 256, i32::MIN, i32::MAX] {
        assert_eq!(op::resolve(unknown).err().map(|error| error.kind()), Some(ErrorKind::Arg));
    }
    assert_eq!(communicator::FMI_HINT_CHEAP, crate::Hint::Cheap as i32);
    assert_eq!(communicator::FMI_HINT_FAST, crate::Hint::Fast as i32);
    for (number, name) in [
        (config::FMI_LOG_OFF, "off"),
        (config::FMI_LOG_ERROR, "error"),
        (config::FMI_LOG_WARN, "warn"),
        (config::FMI_LOG_INFO, "info"),
        (config::FMI_LOG_DEBUG, "debug"),
    ] {
        assert_eq!(crate::LogLevel::from_code(number).map(crate::LogLevel::name), Some(name));
    }
}
