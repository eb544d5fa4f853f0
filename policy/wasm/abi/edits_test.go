package abi

import "testing"

// FuzzParseChanges: what is accepted is what was sent, to the byte.
func FuzzParseChanges(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("\x00\x01\x00\x00\x00\x02\x00\x00\x00abc\x02\x01\x00\x00\x00\x00\x00\x00\x00a"))
	f.Add([]byte("\x01\xff\xff\xff\xff\xff\xff\xff\xffabc"))
	f.Add([]byte("\x03\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := ParseChanges(b)
		if err != nil {
			if len(changes) > 0 {
				t.Errorf("%d changes and %v", len(changes), err)
			}
			return
		}
		size := 0
		for _, c := range changes {
			if c.Kind > EditDel {
				t.Errorf("kind %d", c.Kind)
			}
			size += 9 + len(c.Name) + len(c.Value)
		}
		if size != len(b) {
			t.Errorf("%d bytes of %d", size, len(b))
		}
	})
}
