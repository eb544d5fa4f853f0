package wasm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// A guest has things made of text once, keys, rules, expressions, and names them by
// a handle afterwards. What several VMs of a policy have made of the same text they
// share: it is never changed.
//
//	text ─▶ objects of the policy, by kind and digest ─▶ handles of a VM, 1, 2, …

// object is one such thing.
type object struct {
	key   objectKey
	bytes int // of the text
	does  any
	refs  int // handles, under objects.mu
}

// objects are those of a policy.
type objects struct {
	mu    sync.Mutex
	byKey map[objectKey]*object
	bytes int
}

// handles are a VM's names for objects; nil: freed.
type handles []*object

// errFull says that a guest has had too much made.
var errFull = errors.New("the policy has had as much made as it may")

type objectKey [sha256.Size]byte

func newObjectKey(kind string, text []byte) objectKey {
	return sha256.Sum256(append([]byte(kind+"\x00"), text...))
}

// find returns what was made already, nil if it was not. Whoever gets it calls release.
func (o *objects) find(key objectKey) *object {
	o.mu.Lock()
	defer o.mu.Unlock()
	made := o.byKey[key]
	if made != nil {
		made.refs++
	}
	return made
}

// intern finds what a text makes, or has it made. Whoever gets it calls release.
func (o *objects) intern(key objectKey, text []byte, make func(text []byte) (any, error)) (*object, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if made := o.byKey[key]; made != nil {
		made.refs++
		return made, nil
	}
	if len(o.byKey) >= maxObjects || o.bytes+len(text) > maxObjectBytes {
		return nil, errFull
	}
	does, err := make(bytes.Clone(text))
	if err != nil {
		return nil, err
	}
	if o.byKey == nil {
		o.byKey = map[objectKey]*object{}
	}
	made := &object{key: key, bytes: len(text), does: does, refs: 1}
	o.byKey[key] = made
	o.bytes += made.bytes
	return made, nil
}

func (o *objects) release(made *object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if made.refs--; made.refs == 0 {
		delete(o.byKey, made.key)
		o.bytes -= made.bytes
	}
}

// made is the result of a call that makes something: a zero byte and the handle, or
// a byte that is none, and why not.
func (v *vm) made(kind string, text []byte, make func(text []byte) (any, error)) ([]byte, abi.Status) {
	if len(text) > maxObjectText {
		return v.unmade(fmt.Errorf("it is longer than %d KiB", maxObjectText>>10))
	}
	v.draw(fuelPerVerified + int64(len(text))*fuelPerDigestByte)
	v.settle()
	key, err := newObjectKey(kind, text), error(nil)
	one := v.policy.objects.find(key)
	if one == nil { // which another VM may be making; both pay
		v.draw(fuelPerObject + int64(len(text))*fuelPerObjectByte)
		v.settle()
		one, err = v.policy.objects.intern(key, text, make)
	}
	if err != nil {
		return v.unmade(err)
	}
	for i, held := range v.handles {
		if held == nil {
			v.handles[i] = one
			return v.handle(i), abi.OK
		}
	}
	if len(v.handles) == maxObjects {
		v.policy.objects.release(one)
		return v.unmade(errFull)
	}
	v.handles = append(v.handles, one)
	return v.handle(len(v.handles) - 1), abi.OK
}

func (v *vm) handle(i int) []byte {
	v.scratch = binary.LittleEndian.AppendUint32(append(v.scratch[:0], 0), uint32(i+1))
	return v.scratch
}

func (v *vm) unmade(err error) ([]byte, abi.Status) {
	const most = 512
	why := err.Error()
	v.scratch = append(append(v.scratch[:0], 1), why[:min(len(why), most)]...)
	return v.scratch, abi.OK
}

// objectOf is what a handle names, if it is a T.
func objectOf[T any](v *vm, handle uint32) (does T, of *object, ok bool) {
	if handle == 0 || uint64(handle) > uint64(len(v.handles)) || v.handles[handle-1] == nil {
		return does, nil, false
	}
	of = v.handles[handle-1]
	does, ok = of.does.(T)
	return does, of, ok
}

// freeObject is the foreign function weir.free.
func freeObject(v *vm, arguments []byte) ([]byte, abi.Status) {
	a := argumentsOf(arguments)
	handle := a.number()
	if _, of, ok := objectOf[any](v, handle); ok && a.done() {
		v.policy.objects.release(of)
		v.handles[handle-1] = nil
		return nil, abi.OK
	}
	return nil, abi.BadArgument
}

// dropHandles gives up all that a VM has had made.
func (v *vm) dropHandles() {
	for _, of := range v.handles {
		if of != nil {
			v.policy.objects.release(of)
		}
	}
	v.handles = nil
}

// arguments reads what a guest sends: numbers are 32 bits, little endian, and bytes
// are preceded by how many they are. What is missing reads as zero, and is noted.
type arguments struct {
	left []byte
	bad  bool
}

func argumentsOf(b []byte) arguments { return arguments{left: b} }

func (a *arguments) number() uint32 {
	if len(a.left) < 4 {
		a.left, a.bad = nil, true
		return 0
	}
	n := binary.LittleEndian.Uint32(a.left)
	a.left = a.left[4:]
	return n
}

func (a *arguments) bytes() []byte {
	n := a.number()
	if uint64(n) > uint64(len(a.left)) {
		a.left, a.bad = nil, true
		return nil
	}
	b := a.left[:n:n]
	a.left = a.left[n:]
	return b
}

// rest is what is not preceded by its length, since it is the last.
func (a *arguments) rest() []byte {
	b := a.left
	a.left = nil
	return b
}

// done reports whether all was there, and nothing else.
func (a *arguments) done() bool { return !a.bad && len(a.left) == 0 }
