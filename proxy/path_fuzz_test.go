package proxy

import (
	"math/big"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weirmesh/weir/proxy/exchange"
)

var (
	target    = regexp.MustCompile(`^/([!-$&-~]|%[0-9A-Fa-f]{2})*$`) // that a codec lets through, and "#" and the like
	needless  = regexp.MustCompile(`%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])`)
	dotted    = regexp.MustCompile(`(^|/)\.\.?(/|$)`)
	disguised = regexp.MustCompile(`(?i)(/|%2f|%5c|\\)\.\.?(;|%2f|%5c|\\)|(%2f|%5c|\\)\.\.?(/|$)`)
)

// FuzzPath: what comes of a path is what RFC 3986 makes of it,
// and there is no other way to read it; or it is refused.
func FuzzPath(f *testing.F) {
	for _, path := range []string{"/", "/a/b?c=/../d", "/a/./b/../c", "/..", "/%2e%2E/a", "/a/%2e%2e/%7Eb?%41", "/a;x/..;b/c", "/%2f../a", "/a\\..\\b", "//a//../b", "/a/..?x", "/%25%32%65"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if !target.MatchString(path) || strings.Contains(path, "#") {
			return
		}
		var x exchange.Exchange
		x.Request.Path = []byte(path)
		before, query, _ := strings.Cut(path, "?")
		if err := normalisePath(&x); err != nil {
			if err.Status != 400 {
				t.Fatalf("%q: %v", path, err)
			}
			if plain := needless.ReplaceAllStringFunc(before, plainly); !dotted.MatchString(plain) && !disguised.MatchString(plain) {
				t.Fatalf("%q was refused", path)
			}
			return
		}
		got, rest, _ := strings.Cut(string(x.Request.Path), "?")
		want := resolved(needless.ReplaceAllStringFunc(before, plainly))
		switch {
		case rest != query:
			t.Fatalf("%q: the query became %q", path, rest)
		case needless.MatchString(got) || dotted.MatchString(got) || disguised.MatchString(got):
			t.Fatalf("%q became %q, which can be read in two ways", path, got)
		case got != want:
			t.Fatalf("%q became %q, not %q", path, got, want)
		}
		again := string(x.Request.Path)
		if err := normalisePath(&x); err != nil || string(x.Request.Path) != again {
			t.Fatalf("%q became %q, and that %q, %v", path, again, x.Request.Path, err)
		}
	})
}

// resolved is remove_dot_segments of RFC 3986, section 5.2.4, step by step.
func resolved(in string) (out string) {
	for in != "" {
		switch {
		case strings.HasPrefix(in, "/./"):
			in = in[2:]
		case in == "/.":
			in = "/"
		case strings.HasPrefix(in, "/../"), in == "/..":
			in = "/" + strings.TrimPrefix(in[3:], "/")
			out = out[:max(0, strings.LastIndexByte(out, '/'))]
		default:
			end := strings.IndexByte(in[1:], '/') + 1
			if end == 0 {
				end = len(in)
			}
			out, in = out+in[:end], in[end:]
		}
	}
	return out
}

func plainly(encoded string) string {
	s, _ := url.PathUnescape(encoded)
	return s
}

// FuzzGRPCTimeout: up to eight digits and a unit, as the protocol of gRPC says, and
// never more than a year.
func FuzzGRPCTimeout(f *testing.F) {
	for _, value := range []string{"1S", "99999999H", "0n", "000000001m", "1", "S", "-1S", "1s", "１S", "12345678u"} {
		f.Add(value)
	}
	syntax := regexp.MustCompile(`^[0-9]{1,8}[HMSmun]$`)
	units := map[byte]int64{'H': 3600e9, 'M': 60e9, 'S': 1e9, 'm': 1e6, 'u': 1e3, 'n': 1}
	f.Fuzz(func(t *testing.T, value string) {
		got, ok := parseGRPCTimeout([]byte(value))
		if ok != syntax.MatchString(value) {
			t.Fatalf("%q: %v", value, ok)
		}
		if !ok {
			return
		}
		want, _ := new(big.Int).SetString(value[:len(value)-1], 10)
		want.Mul(want, big.NewInt(units[value[len(value)-1]]))
		if year := big.NewInt(int64(365 * 24 * time.Hour)); want.Cmp(year) > 0 {
			want = year
		}
		if want.Cmp(big.NewInt(int64(got))) != 0 {
			t.Fatalf("%q is %s, not %s ns", value, got, want)
		}
	})
}
