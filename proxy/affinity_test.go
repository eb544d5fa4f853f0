package proxy

import (
	"bytes"
	"testing"

	"github.com/weirmesh/weir/proxy/exchange"
)

func withCookies(lines ...string) *exchange.Exchange {
	x := new(exchange.Exchange)
	for _, line := range lines {
		x.Request.Fields.AddParsed([]byte("Cookie"), []byte(line))
	}
	return x
}

func TestCookie(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{nil, ""},
		{[]string{"s=1"}, "1"},
		{[]string{"a=0; s=1; b=2"}, "1"},
		{[]string{"a=0;s=1"}, "1"},
		{[]string{"a=0", `s="1"`}, "1"}, // as HTTP/2 may split them
		{[]string{"ss=1; xs=2; S=3"}, ""},
		{[]string{"s"}, ""},
		{[]string{"s=a=b"}, "a=b"},
		{[]string{"s=; s=2"}, ""},
	} {
		if got := cookie(withCookies(c.lines...), "s"); string(got) != c.want {
			t.Errorf("%q: %q", c.lines, got)
		}
	}
}

func TestParameter(t *testing.T) {
	for path, want := range map[string]string{
		"/": "", "/?": "", "/?u": "", "/?u=": "", "/?u=1": "1", "/?a=2&u=1&u=3": "1", "/?uu=1&xu=2": "", "/?u=%20+": "%20+", "/u=1": "",
	} {
		if got := parameter([]byte(path), "u"); string(got) != want {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func FuzzAffinity(f *testing.F) {
	f.Add([]byte("/?u=1&u"), []byte(`a; s="1`))
	f.Fuzz(func(t *testing.T, path, line []byte) {
		if got := parameter(path, "u"); !bytes.Contains(path, got) {
			t.Errorf("%q has %q", path, got)
		}
		if got := cookie(withCookies(string(line)), "s"); !bytes.Contains(line, got) {
			t.Errorf("%q has %q", line, got)
		}
	})
}
