package wasm

import (
	"bytes"

	"github.com/weirmesh/weir/policy/wasm/abi"
	"github.com/weirmesh/weir/proxy/exchange"
)

// An edit is changes of a head that a guest has given to its VM beforehand. Its
// callbacks name it beside their action, and the changes are made when the callback
// has returned: so a guest that decides which changes a head needs, but not what is
// in them, makes no host call for them, and they are checked and copied only once.
type edit struct {
	changes []abi.Change
	grows   int // by how many fields, at most
	bytes   int64
	names   int64 // bytes of the names that are looked for
}

// addEdit is the foreign function weir.edit: it takes a list of changes and returns
// the number of the edit in one byte. Whatever is not certain to be possible in any
// head is refused, so that the guest makes those changes itself and is told.
func addEdit(v *vm, arguments []byte) ([]byte, abi.Status) {
	v.drawBytes(len(arguments))
	if len(v.edits) == maxEdits || v.editBytes+len(arguments) > maxEditBytes {
		return nil, abi.BadArgument
	}
	changes, err := abi.ParseChanges(bytes.Clone(arguments))
	if err != nil {
		return nil, abi.SerializationFailure
	}
	e := edit{bytes: int64(len(arguments))}
	for _, c := range changes {
		switch {
		case !exchange.ValidName(c.Name), exchange.EqualFold(c.Name, "host"):
			return nil, abi.BadArgument // a pseudo-field, or none at all
		case c.Kind != abi.EditDel && isFraming(c.Name):
			continue // the codec's affair
		case c.Kind != abi.EditDel:
			e.grows++
		}
		if c.Kind != abi.EditAdd {
			e.names += int64(len(c.Name))
		}
		e.changes = append(e.changes, c)
	}
	v.editBytes += len(arguments)
	v.edits = append(v.edits, e)
	return []byte{byte(len(v.edits))}, abi.OK
}

// edit makes the changes that a callback's action names, which cost the callback as
// much as host calls for them would, less the calls.
func (f *filter) edit(cb int, number uint32) error {
	v := f.vm
	if int(number) > len(v.edits) {
		return &Trap{Callback: callbacks[cb].name, Reason: "it names an edit that there is not"}
	}
	e := &v.edits[number-1]
	fields := &f.x.Request.Fields
	if f.stage >= stageResponseHead {
		fields = &f.x.Response.Fields
	}
	n := fields.Len() + e.grows
	if err := v.charge(cb, (e.bytes+e.names*int64(n))/4*fuelPerByte4+int64(len(e.changes))*fuelPerEdit); err != nil {
		return err
	}
	if n > maxFields {
		v.policy.log.line(v, abi.Warn, "cannot edit a head: it would have too many fields")
		return nil
	}
	for i := range e.changes {
		switch c := &e.changes[i]; c.Kind {
		case abi.EditSet:
			fields.Set(c.Name, c.Value)
		case abi.EditAdd:
			fields.Add(c.Name, c.Value)
		case abi.EditDel:
			fields.Del(text(c.Name))
		}
	}
	return nil
}
