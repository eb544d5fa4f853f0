package http2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/weirmesh/weir/proxy/exchange"
	"github.com/weirmesh/weir/proxy/section"
)

// decode reads a block as any client does.
func decode(t *testing.T, block []byte) (fields []string) {
	t.Helper()
	d := hpack.NewDecoder(defaultTableSize, nil)
	all, err := d.DecodeFull(block)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		fields = append(fields, f.Name+": "+f.Value)
	}
	return fields
}

func TestStaticTable(t *testing.T) {
	for name, n := range staticNames {
		if got := decode(t, section.AppendInt(section.AppendInt(nil, 0, 4, int(n)), 0, 7, 0)); got[0] != name+": " {
			t.Errorf("number %d is %q, not %s", n, got[0], name)
		}
		if got := decode(t, appendField(nil, []byte(strings.ToUpper(name)), []byte("v"))); got[0] != name+": v" {
			t.Errorf("%s is written as %q", name, got[0])
		}
	}
	for _, status := range []int{200, 204, 206, 304, 400, 404, 500, 201, 421, 599} {
		if got := decode(t, appendStatus(nil, status)); got[0] != fmt.Sprintf(":status: %d", status) {
			t.Errorf("%d is written as %q", status, got[0])
		}
	}
}

// What is written is read as the same, whatever it is.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("X-Name"), []byte("value"))
	f.Add([]byte("content-type"), bytes.Repeat([]byte("v"), 5000))
	f.Add(bytes.Repeat([]byte("N"), 300), []byte{})
	f.Fuzz(func(t *testing.T, name, value []byte) {
		if !exchange.ValidName(name) {
			return
		}
		want := string(bytes.ToLower(name)) + ": " + string(value)
		if got := decode(t, appendField(nil, name, value)); len(got) != 1 || got[0] != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
