package main

import "testing"

func TestMemoryLimit(t *testing.T) {
	for text, want := range map[string]int64{"auto": 0, "off": -1, "512Mi": 512 << 20, "1GiB": 1 << 30, "67108864": 64 << 20} {
		if got, err := memoryLimit(text); got != want || err != nil {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "1Mi", "-1", "much", "99999999999Gi", "18446744073709551615"} {
		if got, err := memoryLimit(text); err == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}
