package main

import (
	"strings"
	"testing"
)

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

func TestPluginLimits(t *testing.T) {
	for _, test := range []struct {
		given map[string]string
		want  string // of the error
	}{
		{map[string]string{"tenant-memory": "256Mi", "vms": "4"}, ""},
		{map[string]string{"vms": "many"}, `--plugin-limits: vms must be a number or a size such as 64Mi, not "many"`},
		{map[string]string{"vm": "4"}, `--plugin-limits: no limit of plugins is called "vm"; there are `},
		{map[string]string{"vms": ""}, `--plugin-limits: the limit vms of plugins must be from 1 to 10000, not 0`},
	} {
		caps, err := readPluginLimits(test.given)
		if test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%v: %v, not %q", test.given, err, test.want)
		}
		if test.want == "" && (err != nil || caps["tenant-memory"] != 256<<20 || caps["vms"] != 4) {
			t.Errorf("%v is %v, %v", test.given, caps, err)
		}
	}
}
