package wasm

import (
	"bytes"
	"strconv"
	"time"

	"github.com/weirmesh/weir/policy"
	"github.com/weirmesh/weir/policy/wasm/abi"
)

func appendInt(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }

func proxyLog(v *vm, s stack) abi.Status {
	text, inside := v.read(s.u32(1), s.u32(2))
	if !inside {
		return abi.InvalidMemoryAccess
	}
	v.draw(fuelPerLog)
	level := abi.Level(s.u32(0))
	if level > abi.Critical {
		return abi.BadArgument
	}
	v.policy.log.bytes(v, level, text)
	return abi.OK
}

func proxyGetLogLevel(v *vm, s stack) abi.Status {
	return v.putU32(s.u32(0), uint32(v.policy.log.least()))
}

func proxyGetTime(v *vm, s stack) abi.Status {
	if !v.mem.WriteUint64Le(s.u32(0), uint64(v.policy.host.config.Clock().UnixNano())) {
		return abi.InvalidMemoryAccess
	}
	return abi.OK
}

// proxySetTick counts while the guest is configured, and later when it ticks.
func proxySetTick(v *vm, s stack) abi.Status {
	period := time.Duration(s.u32(0)) * time.Millisecond
	if period > 0 {
		period = max(period, minTick*time.Millisecond)
	}
	v.tickPeriod = period
	return abi.OK
}

// proxySetContext switches to another context of the VM: the root, or an exchange.
// Of an exchange that is neither in a callback nor parked nothing can be seen.
func proxySetContext(v *vm, s stack) abi.Status {
	switch id := s.u32(0); {
	case id == rootID:
		v.effective = nil
	case v.current != nil && id == v.current.id:
		v.effective = v.current
	default:
		f := v.filter(id)
		if f == nil {
			return abi.BadArgument
		}
		v.effective = f
	}
	return abi.OK
}

// proxyDone answers on_done's "not yet", which the host did not wait for.
func proxyDone(*vm, stack) abi.Status { return abi.OK }

// foreign is a function that this host offers under a name of its own.
type foreign struct {
	name  string
	about string
	does  func(v *vm, arguments []byte) (result []byte, status abi.Status)
}

var foreignTable = []foreign{
	{"clear_route_cache", "asks for the route to be chosen anew", func(v *vm, _ []byte) ([]byte, abi.Status) {
		return nil, proxyClearRoute(v, nil)
	}},
	{"weir.edit", "keeps changes of a head, which actions name", addEdit},
	{"weir.schema", "says what a configuration may be", setSchema},
	{"weir.phases", "says which callbacks the guest has code for", setPhases},
	{"weir.wait", "waits, for a time or for shared data to change", beginWatch},
}

// setSchema takes a JSON schema, when the guest is asked for it.
func setSchema(v *vm, schema []byte) ([]byte, abi.Status) {
	if v.stage != stageRoot || len(schema) > maxSchema {
		return nil, abi.BadArgument
	}
	v.drawBytes(len(schema))
	v.schema = bytes.Clone(schema)
	return nil, abi.OK
}

// foreignFunctions are all of them, by name.
var foreignFunctions = byForeignName(foreignTable, signatureCalls, expressionCalls, documentCalls)

func byForeignName(tables ...[]foreign) map[string]*foreign {
	m := map[string]*foreign{}
	for _, table := range tables {
		for i := range table {
			m[table[i].name] = &table[i]
		}
	}
	return m
}

// setPhases takes one byte, a set of bits: 1 request head, 2 request body, 4
// response head, 8 response body; the host does not make the other callbacks.
// 16: an exchange may be forgotten when the last of these phases is over. 32: the
// guest wants light exchanges; then the result is the bits that the host knows, so
// that the guest can tell whether it gets them. 64: a pause on a head means that the
// body be shown, and one that no body can end is none unless a call is in flight. A
// second byte, where there is one, is the trailers that the guest has code for: 1 the
// request's, 2 the response's.
func setPhases(v *vm, arguments []byte) ([]byte, abi.Status) {
	if len(arguments) < 1 || len(arguments) > 2 || v.stage != stageRoot {
		return nil, abi.BadArgument
	}
	const all = policy.RequestHead | policy.RequestBody | policy.ResponseHead | policy.ResponseBody
	set := arguments[0]
	v.announced, v.wanted, v.trailing = true, policy.Phases(set)&all, 0
	if len(arguments) == 2 {
		v.trailing = arguments[1]
	}
	v.brief, v.light, v.indulgent = set&phaseBrief != 0, set&phaseLight != 0, set&phaseIndulgent != 0
	if !v.light {
		return nil, abi.OK
	}
	return []byte{set}, abi.OK
}

const (
	phaseBrief     = 16
	phaseLight     = 32
	phaseIndulgent = 64
)

const (
	trailingRequest  = 1
	trailingResponse = 2
)

func proxyCallForeign(v *vm, s stack) abi.Status {
	name, a := v.read(s.u32(0), s.u32(1))
	arguments, b := v.read(s.u32(2), s.u32(3))
	if !a || !b {
		return abi.InvalidMemoryAccess
	}
	if f := foreignFunctions[text(name)]; f != nil {
		result, status := f.does(v, arguments)
		if status != abi.OK {
			return status
		}
		return v.give(result, s.u32(4), s.u32(5))
	}
	return abi.NotFound
}
