package wasm

import (
	"encoding/binary"
	"io"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// The system interface (WASI preview 1, and its older name), which language
// runtimes link more of than they use. There are clocks, random numbers and two
// outputs, which are the log; no arguments, no files, no sockets, no waiting.
const (
	sysOK       abi.Status = 0
	sysBadFile  abi.Status = 8
	sysFault    abi.Status = 21
	sysInvalid  abi.Status = 28
	sysNoSystem abi.Status = 52
)

var systemFunctions = byName([]function{
	{"args_get", "ii", sysYes, "there are no arguments", early},
	{"args_sizes_get", "ii", sysNoStrings, "there are no arguments", early},
	{"environ_get", "ii", sysYes, "there is no environment", early},
	{"environ_sizes_get", "ii", sysNoStrings, "there is no environment", early},
	{"clock_res_get", "ii", sysClockRes, "a clock's resolution", early},
	{"clock_time_get", "ili", sysClock, "reads a clock", early},
	{"random_get", "ii", sysRandom, "random bytes", early},
	{"sched_yield", "", sysYes, "there is no one to yield to", early},
	{"poll_oneoff", "iiii", sysPoll, "returns at once: time does not pass inside a callback", early},
	{"proc_exit", "i", sysExit, "ends the VM", early | noResult},
	{"proc_raise", "i", sysExit, "ends the VM", early},
	{"fd_write", "iiii", sysWrite, "writes to the log", early},
	{"fd_fdstat_get", "ii", sysFileStat, "describes an output", early},

	// There are no other files.
	{"fd_advise", "illi", sysNoFile, "", early},
	{"fd_allocate", "ill", sysNoFile, "", early},
	{"fd_close", "i", sysNoFile, "", early},
	{"fd_datasync", "i", sysNoFile, "", early},
	{"fd_fdstat_set_flags", "ii", sysNoFile, "", early},
	{"fd_fdstat_set_rights", "ill", sysNoFile, "", early},
	{"fd_filestat_get", "ii", sysNoFile, "", early},
	{"fd_filestat_set_size", "il", sysNoFile, "", early},
	{"fd_filestat_set_times", "illi", sysNoFile, "", early},
	{"fd_pread", "iiili", sysNoFile, "", early},
	{"fd_prestat_get", "ii", sysNoFile, "", early},
	{"fd_prestat_dir_name", "iii", sysNoFile, "", early},
	{"fd_pwrite", "iiili", sysNoFile, "", early},
	{"fd_read", "iiii", sysNoFile, "", early},
	{"fd_readdir", "iiili", sysNoFile, "", early},
	{"fd_renumber", "ii", sysNoFile, "", early},
	{"fd_seek", "ilii", sysNoFile, "", early},
	{"fd_sync", "i", sysNoFile, "", early},
	{"fd_tell", "ii", sysNoFile, "", early},
	{"path_create_directory", "iii", sysNoFile, "", early},
	{"path_filestat_get", "iiiii", sysNoFile, "", early},
	{"path_filestat_set_times", "iiiilli", sysNoFile, "", early},
	{"path_link", "iiiiiii", sysNoFile, "", early},
	{"path_open", "iiiiillii", sysNoFile, "", early},
	{"path_readlink", "iiiiii", sysNoFile, "", early},
	{"path_remove_directory", "iii", sysNoFile, "", early},
	{"path_rename", "iiiiii", sysNoFile, "", early},
	{"path_symlink", "iiiii", sysNoFile, "", early},
	{"path_unlink_file", "iii", sysNoFile, "", early},
	{"sock_accept", "iii", sysNothing, "", early},
	{"sock_recv", "iiiiii", sysNothing, "", early},
	{"sock_send", "iiiii", sysNothing, "", early},
	{"sock_shutdown", "ii", sysNothing, "", early},
})

func sysYes(*vm, stack) abi.Status     { return sysOK }
func sysNoFile(*vm, stack) abi.Status  { return sysBadFile }
func sysNothing(*vm, stack) abi.Status { return sysNoSystem }

func sysNoStrings(v *vm, s stack) abi.Status {
	if !v.mem.WriteUint32Le(s.u32(0), 0) || !v.mem.WriteUint32Le(s.u32(1), 0) {
		return sysFault
	}
	return sysOK
}

func sysClockRes(v *vm, s stack) abi.Status {
	if !v.mem.WriteUint64Le(s.u32(1), 1) {
		return sysFault
	}
	return sysOK
}

// sysClock: clock 0 is the time of day, the others measure durations, from when
// the host began.
func sysClock(v *vm, s stack) abi.Status {
	var now int64
	switch s.u32(0) {
	case 0:
		now = v.policy.host.config.Clock().UnixNano()
	case 1, 2, 3:
		now = int64(v.policy.host.config.Clock().Sub(v.policy.host.began))
	default:
		return sysInvalid
	}
	if !v.mem.WriteUint64Le(s.u32(2), uint64(now)) {
		return sysFault
	}
	return sysOK
}

func sysRandom(v *vm, s stack) abi.Status {
	b, ok := v.read(s.u32(0), s.u32(1))
	if !ok {
		return sysFault
	}
	if len(b) > maxRandom {
		return sysInvalid
	}
	v.drawBytes(8 * len(b)) // dearer than copying
	if _, err := io.ReadFull(v.random, b); err != nil {
		return sysInvalid
	}
	return sysOK
}

func sysExit(_ *vm, s stack) abi.Status { panic(exit(s.u32(0))) }

// sysWrite gathers lines of both outputs into the log.
func sysWrite(v *vm, s stack) abi.Status {
	const maxPieces = 1024
	fd, n := s.u32(0), s.u32(2)
	if fd != 1 && fd != 2 {
		return sysBadFile
	}
	pieces, ok := v.read(s.u32(1), min(n, maxPieces)*8)
	if !ok || !v.writable(s.u32(3)) {
		return sysFault
	}
	level := abi.Info
	if fd == 2 {
		level = abi.Error
	}
	written := 0
	for ; len(pieces) > 0; pieces = pieces[8:] {
		b, ok := v.read(binary.LittleEndian.Uint32(pieces), binary.LittleEndian.Uint32(pieces[4:]))
		if !ok {
			return sysFault
		}
		v.drawBytes(len(b))
		v.output[fd-1].write(v, level, b)
		written += len(b)
	}
	v.mem.WriteUint32Le(s.u32(3), uint32(written))
	return sysOK
}

// sysFileStat says that the outputs are terminals, so that nobody looks further.
func sysFileStat(v *vm, s stack) abi.Status {
	if s.u32(0) > 2 {
		return sysBadFile
	}
	b, ok := v.read(s.u32(1), 24)
	if !ok {
		return sysFault
	}
	clear(b)
	b[0] = 2
	return sysOK
}

// sysPoll says of each thing waited for that it has come. A guest that sleeps
// therefore loops, until its tank is empty.
func sysPoll(v *vm, s stack) abi.Status {
	const maxEvents, subscription, event = 1024, 48, 32
	n := s.u32(2)
	if n == 0 || n > maxEvents {
		return sysInvalid
	}
	in, a := v.read(s.u32(0), n*subscription)
	out, b := v.read(s.u32(1), n*event)
	if !a || !b || !v.writable(s.u32(3)) {
		return sysFault
	}
	v.drawBytes(len(in))
	for i := range int(n) {
		user, kind := binary.LittleEndian.Uint64(in[i*subscription:]), in[i*subscription+8]
		e := out[i*event : (i+1)*event]
		clear(e)
		binary.LittleEndian.PutUint64(e, user)
		if kind != 0 { // not a clock
			binary.LittleEndian.PutUint16(e[8:], uint16(sysBadFile))
		}
		e[10] = kind
	}
	v.mem.WriteUint32Le(s.u32(3), n)
	return sysOK
}
