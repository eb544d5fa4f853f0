package store

import (
	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// maxValue bounds a value: it stays in memory, and travels in one entry.
const maxValue = 512 << 10

func (d *draft) putValue(c *weirv1.PutValue) (*RefusedError, error) {
	ref := resource.Ref{Kind: c.GetTable(), Name: c.GetKey()}
	if refused := checkValueKey(ref); refused != nil {
		return refused, nil
	}
	if len(c.GetValue()) > maxValue {
		return refuse(ref, Invalid, "the value has %d bytes; the most is %d", len(c.GetValue()), maxValue), nil
	}
	key := valueKey(c.GetTable(), c.GetKey())
	if _, found := d.values.Get(key); found && c.GetMustNotExist() {
		return refuse(ref, AlreadyExists, "it is there already"), nil
	}
	d.values.Insert(key, c.GetValue())
	return nil, d.put(bucketValues, key, c.GetValue())
}

func (d *draft) deleteValue(c *weirv1.DeleteValue) (*RefusedError, error) {
	ref := resource.Ref{Kind: c.GetTable(), Name: c.GetKey()}
	if refused := checkValueKey(ref); refused != nil {
		return refused, nil
	}
	key := valueKey(c.GetTable(), c.GetKey())
	if _, found := d.values.Delete(key); !found && c.GetMustExist() {
		return refuse(ref, NotFound, "it is not there"), nil
	}
	return nil, d.drop(bucketValues, key)
}

func checkValueKey(ref resource.Ref) *RefusedError {
	if !validPart(ref.Kind) || !validPart(ref.Name) {
		return refuse(ref, Invalid, "a table and a key have 1 to %d bytes, none of them zero", longestPart)
	}
	return nil
}
