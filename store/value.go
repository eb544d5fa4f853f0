package store

import (
	"bytes"

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
	d.put(bucketValues, key, c.GetValue())
	return nil, nil
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
	d.drop(bucketValues, key)
	return nil, nil
}

// changeValues checks all before it changes anything.
func (d *draft) changeValues(c *weirv1.ChangeValues) (*RefusedError, error) {
	seen := map[string]bool{}
	for _, change := range c.GetChanges() {
		if refused := d.checkChange(change); refused != nil {
			return refused, nil
		}
		key := string(valueKey(change.GetTable(), change.GetKey()))
		if seen[key] {
			ref := resource.Ref{Kind: change.GetTable(), Name: change.GetKey()}
			return refuse(ref, Invalid, "it is changed twice"), nil
		}
		seen[key] = true
	}
	for _, change := range c.GetChanges() {
		d.changeValue(change)
	}
	return nil, nil
}

func (d *draft) checkChange(c *weirv1.ValueChange) *RefusedError {
	ref := resource.Ref{Kind: c.GetTable(), Name: c.GetKey()}
	if refused := checkValueKey(ref); refused != nil {
		return refused
	}
	if len(c.GetValue()) > maxValue {
		return refuse(ref, Invalid, "the value has %d bytes; the most is %d", len(c.GetValue()), maxValue)
	}
	if c.GetMustNotExist() && c.MustBe != nil {
		return refuse(ref, Invalid, "it cannot be absent and have a value")
	}
	now, found := d.values.Get(valueKey(ref.Kind, ref.Name))
	switch {
	case c.GetMustNotExist() && found:
		return refuse(ref, AlreadyExists, "it is there already")
	case c.MustBe != nil && !found:
		return refuse(ref, Conflict, "it is not there any more")
	case c.MustBe != nil && !bytes.Equal(now, c.GetMustBe()):
		return refuse(ref, Conflict, "it has changed")
	}
	return nil
}

func (d *draft) changeValue(c *weirv1.ValueChange) {
	key := valueKey(c.GetTable(), c.GetKey())
	if c.Value == nil {
		d.values.Delete(key)
		d.drop(bucketValues, key)
		return
	}
	d.values.Insert(key, c.GetValue())
	d.put(bucketValues, key, c.GetValue())
}

func checkValueKey(ref resource.Ref) *RefusedError {
	if !validPart(ref.Kind) || !validPart(ref.Name) {
		return refuse(ref, Invalid, "a table and a key have 1 to %d bytes, none of them zero", longestPart)
	}
	return nil
}
