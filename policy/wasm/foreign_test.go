package wasm

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/weirmesh/weir/policy/wasm/abi"
)

// caller makes foreign calls as a guest would, without a guest.
type foreignCaller struct {
	t testing.TB
	v *vm
}

func newForeignCaller(t testing.TB, c Config, fuel uint64) *foreignCaller {
	s := spec("")
	s.Fuel = fuel
	p := newFixture(t, c).make(s)
	return &foreignCaller{t, p.pool.vms[0]}
}

// call makes one, with a full tank, and says what it burned; -1: all of it.
func (c *foreignCaller) call(name string, args []byte) (result []byte, status abi.Status, fuel int64) {
	v := c.v
	v.mu.Lock()
	defer v.mu.Unlock()
	full := v.policy.fuel
	v.tank.Set(uint64(full))
	v.owed = 0
	defer func() {
		if r := recover(); r != nil {
			if r != errEmpty { //nolint:errorlint // it is the value that is thrown
				panic(r)
			}
			fuel, status = -1, abi.InternalFailure
		}
	}()
	result, status = foreignFunctions[name].does(v, args)
	v.settle()
	return append([]byte(nil), result...), status, full - int64(v.tank.Get())
}

func (c *foreignCaller) ok(name string, args []byte) []byte {
	c.t.Helper()
	result, status, fuel := c.call(name, args)
	if status != abi.OK || fuel < 0 {
		c.t.Fatalf("%s: status %d, fuel %d", name, status, fuel)
	}
	return result
}

// make has something made, and returns its handle.
func (c *foreignCaller) make(name string, text string) uint32 {
	c.t.Helper()
	result := c.ok(name, []byte(text))
	if result[0] != 0 {
		c.t.Fatalf("%s: %s", name, result[1:])
	}
	return binary.LittleEndian.Uint32(result[1:])
}

// list is arguments: numbers, and texts after their lengths.
func list(args ...any) (b []byte) {
	for _, a := range args {
		switch a := a.(type) {
		case int:
			b = binary.LittleEndian.AppendUint32(b, uint32(a))
		case uint32:
			b = binary.LittleEndian.AppendUint32(b, a)
		case string:
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(a))), a...)
		case []byte: // the rest
			b = append(b, a...)
		}
	}
	return b
}

func TestDigestsAndSecrets(t *testing.T) {
	c := newForeignCaller(t, Config{}, 0)
	text := []byte("some text")
	d256, d512 := sha256.Sum256(text), sha512.Sum512(text)
	mac := hmac.New(sha512.New384, []byte("key"))
	mac.Write(text)
	for _, test := range []struct {
		name string
		args []byte
		want []byte
	}{
		{"weir.digest", list(256, text), d256[:]},
		{"weir.digest", list(512, text), d512[:]},
		{"weir.hmac", list(384, "key", text), mac.Sum(nil)},
		{"weir.equal", list("secret", []byte("secret")), []byte{1}},
		{"weir.equal", list("secret", []byte("secreT")), []byte{0}},
		{"weir.equal", list("secret", []byte("longer secret")), []byte{0}},
	} {
		if got := c.ok(test.name, test.args); string(got) != string(test.want) {
			t.Errorf("%s of %q is %x, want %x", test.name, test.args, got, test.want)
		}
	}
	for name, args := range map[string][]byte{
		"weir.digest": list(1, text), "weir.hmac": list(256, 99, text), "weir.equal": nil,
		"weir.verify": list(7), "weir.jwt_check": list(7), "weir.free": list(0), "weir.regexp_find": list(1),
	} {
		if _, status, _ := c.call(name, args); status != abi.BadArgument {
			t.Errorf("%s of %x: status %d", name, args, status)
		}
	}
}

func TestSignatures(t *testing.T) {
	c := newForeignCaller(t, Config{}, 0)
	public, private, _ := ed25519.GenerateKey(nil)
	jwk := fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":"k","x":%q}`, base64.RawURLEncoding.EncodeToString(public))
	keys := c.make("weir.keys", jwk)
	signature := string(ed25519.Sign(private, []byte("message")))
	for _, test := range []struct {
		algorithm, id, message string
		want                   byte
	}{{"EdDSA", "k", "message", 1}, {"", "", "message", 0}, {"EdDSA", "other", "message", 0}, {"EdDSA", "k", "another", 0}, {"RS256", "k", "message", 0}} {
		if got := c.ok("weir.verify", list(keys, test.algorithm, test.id, signature, []byte(test.message))); got[0] != test.want {
			t.Errorf("%+v: %d", test, got[0])
		}
	}
	if why := c.ok("weir.keys", []byte("no keys")); why[0] == 0 || !strings.Contains(string(why), "neither") {
		t.Errorf("no keys: %q", why)
	}
	c.ok("weir.free", list(keys))
	if _, status, _ := c.call("weir.verify", list(keys, "EdDSA", "k", signature, []byte("message"))); status != abi.BadArgument {
		t.Errorf("a key that was given up: status %d", status)
	}
	if n := len(c.v.policy.objects.byKey); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// token is one signed by HMAC with the secret of the tests.
const tokenSecret = "0123456789abcdef0123456789abcdef"

func token(claims string) string {
	part := base64.RawURLEncoding.EncodeToString
	text := part([]byte(`{"alg":"HS256"}`)) + "." + part([]byte(claims))
	mac := hmac.New(sha256.New, []byte(tokenSecret))
	mac.Write([]byte(text))
	return text + "." + part(mac.Sum(nil))
}

func tokenRules(more string) string {
	return fmt.Sprintf(`{"keys":"{\"kty\":\"oct\",\"k\":\"%s\"}","claims":["sub","none"]%s}`,
		base64.RawURLEncoding.EncodeToString([]byte(tokenSecret)), more)
}

// ticking is a clock that goes on a little each time, as guests' runtimes want it.
func ticking(now *time.Time) func() time.Time {
	var n time.Duration
	return func() time.Time { n++; return now.Add(n) }
}

func TestTokens(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	c := newForeignCaller(t, Config{Clock: ticking(&now)}, 0)
	rules := c.make("weir.jwt", tokenRules(""))
	good := list(rules, []byte(token(`{"sub":"alice","exp":1800000060}`)))
	_, _, first := c.call("weir.jwt_check", good)
	result, _, second := c.call("weir.jwt_check", good)
	if want := "\x00\x05\x00\x00\x00alice\xff\xff\xff\xff"; string(result) != want {
		t.Errorf("a good token: %q", result)
	}
	if second >= first/3 {
		t.Errorf("a token costs %d, and when it was seen before %d", first, second)
	}
	now = now.Add(time.Minute)
	if result := c.ok("weir.jwt_check", good); result[0] != 1 || !strings.Contains(string(result), "expired") {
		t.Errorf("a token that was good before: %q", result)
	}
	scoped := c.make("weir.jwt", tokenRules(`,"require":{"scope":["a"]},"endless":true`))
	if result := c.ok("weir.jwt_check", list(scoped, []byte(token(`{}`)))); result[0] != 2 {
		t.Errorf("a token without its scope: %q", result)
	}
	if result := c.ok("weir.jwt_check", list(rules, []byte("nonsense"))); result[0] != 1 {
		t.Errorf("no token: %q", result)
	}
	if why := c.ok("weir.jwt", []byte(`{"key":""}`)); why[0] == 0 || !strings.Contains(string(why), `unknown field`) {
		t.Errorf("rules that are not known: %q", why)
	}
}

// TestDearKeys: what a callback cannot pay for is refused before, or in words.
func TestDearKeys(t *testing.T) {
	jwk := func(kid string) string {
		key, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		part := base64.RawURLEncoding.EncodeToString
		return fmt.Sprintf(`{"kty":"EC","crv":"P-521","kid":%q,"x":%q,"y":%q}`, kid,
			part(key.X.FillBytes(make([]byte, 66))), part(key.Y.FillBytes(make([]byte, 66))))
	}
	small := newForeignCaller(t, Config{}, 0)
	if why := small.ok("weir.keys", []byte(jwk("a"))); why[0] == 0 || !strings.Contains(string(why), "raise limits.fuel") {
		t.Errorf("a key that is too dear: %q", why)
	}
	c := newForeignCaller(t, Config{}, 30_000_000)
	set, err := json.Marshal(map[string]any{"keys": `{"keys":[` + jwk("a") + "," + jwk("b") + `]}`})
	if err != nil {
		t.Fatal(err)
	}
	part := base64.RawURLEncoding.EncodeToString
	unnamed := part([]byte(`{"alg":"ES512"}`)) + "." + part([]byte(`{}`)) + "." + part(make([]byte, 132))
	rules := c.make("weir.jwt", string(set))
	if result := c.ok("weir.jwt_check", list(rules, []byte(unnamed))); !strings.Contains(string(result), "too many keys") {
		t.Errorf("a token that names no key: %q", result)
	}
	named := part([]byte(`{"alg":"ES512","kid":"a"}`)) + "." + part([]byte(`{}`)) + "." + part(make([]byte, 132))
	if result := c.ok("weir.jwt_check", list(rules, []byte(named))); !strings.Contains(string(result), "signature is wrong") {
		t.Errorf("a token that names one: %q", result)
	}
}

// TestTokensThatAreRememberedAreBounded: however many there are, and however long.
func TestTokensThatAreRememberedAreBounded(t *testing.T) {
	var c verified
	of := &object{}
	for i := range 10 * maxVerified {
		c.add(verifiedKey{of, sha256.Sum256(binary.LittleEndian.AppendUint32(nil, uint32(i)))}, nil)
	}
	if n := len(c.young) + len(c.old); n > 2*maxVerified || c.bytes > maxVerifiedBytes {
		t.Errorf("%d entries, %d bytes", n, c.bytes)
	}
	last := verifiedKey{of, sha256.Sum256(binary.LittleEndian.AppendUint32(nil, 10*maxVerified-1))}
	if _, ok := c.get(last); !ok {
		t.Error("the last one is forgotten")
	}
}

func TestPasswords(t *testing.T) {
	c := newForeignCaller(t, Config{}, 40_000_000)
	hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	p := c.make("weir.password", string(hash))
	check := func(password string) (byte, int64) {
		result, status, fuel := c.call("weir.password_check", list(p, []byte(password)))
		if status != abi.OK || fuel < 0 {
			t.Fatalf("status %d, fuel %d", status, fuel)
		}
		return result[0], fuel
	}
	yes, first := check("open sesame")
	again, second := check("open sesame")
	no, wrong := check("open sesam")
	if yes != 1 || again != 1 || no != 0 || second >= first/10 || wrong < first {
		t.Errorf("right %d for %d, again %d for %d, wrong %d for %d", yes, first, again, second, no, wrong)
	}
	if no, _ := check(strings.Repeat("x", 100)); no != 0 {
		t.Error("a password is cut")
	}
	for text, why := range map[string]string{"{SHA}x": "no hash", "$2y$12$" + strings.Repeat("a", 53): "raise limits.fuel"} {
		if result := c.ok("weir.password", []byte(text)); result[0] == 0 || !strings.Contains(string(result), why) {
			t.Errorf("%s: %q", text, result)
		}
	}
}

func TestExpressions(t *testing.T) {
	c := newForeignCaller(t, Config{}, 0)
	e := c.make("weir.regexp", `^/v(\d+)/(x)?`)
	if got := c.ok("weir.regexp_find", list(e, []byte("/v12/y"))); hex.EncodeToString(got) != "00000000"+"05000000"+"02000000"+"04000000"+"ffffffff"+"ffffffff" {
		t.Errorf("found %x", got)
	}
	if got := c.ok("weir.regexp_find", list(e, []byte("/w"))); len(got) != 0 {
		t.Errorf("found %x", got)
	}
	if got := c.ok("weir.regexp_replace", list(c.make("weir.regexp", `([a-z])(\d)`), "$2$1", []byte("a1 b2 c3 d"))); string(got) != "1a 2b 3c d" {
		t.Errorf("replaced: %s", got)
	}
	many := c.make("weir.regexp", `a?`)
	if got, _, fuel := c.call("weir.regexp_replace", list(many, "b", []byte(strings.Repeat("a", 100)))); fuel < 0 || string(got) != strings.Repeat("b", 100) {
		t.Errorf("replaced: %s for %d", got, fuel)
	}
	if _, status, fuel := c.call("weir.regexp_replace", list(many, "b", []byte(strings.Repeat("a", 10_000)))); status == abi.OK || fuel > 0 && fuel < 1_000_000 {
		t.Errorf("as many as there may be: status %d for %d", status, fuel)
	}
	huge := c.make("weir.regexp", `(.+)`)
	if _, status, _ := c.call("weir.regexp_replace", list(huge, strings.Repeat("$1", 1000), []byte(strings.Repeat("a", 10_000)))); status == abi.OK {
		t.Error("a text grows without bound")
	}
	for _, pattern := range []string{"(", strings.Repeat("a", 5000), "(((a{50}){50}){50})", `\pL{1000}{1000}`, `(?P<x>a{500}){20}`} {
		if result := c.ok("weir.regexp", []byte(pattern)); result[0] == 0 {
			t.Errorf("%.20s is accepted", pattern)
		}
	}
}

func TestHandlesAreBounded(t *testing.T) {
	c := newForeignCaller(t, Config{}, 0)
	for i := range maxObjects {
		c.make("weir.regexp", fmt.Sprint(i))
	}
	if result := c.ok("weir.regexp", []byte("one more")); result[0] == 0 {
		t.Error("another is made")
	}
	if result := c.ok("weir.regexp", []byte("1")); result[0] == 0 {
		t.Error("another handle is given")
	}
	c.ok("weir.free", list(7))
	if h := c.make("weir.regexp", "one more"); h != 7 {
		t.Errorf("the handle is %d", h)
	}
}

// TestWhatVMsHaveMadeIsShared: a second VM's keys are the first one's, and when the
// VMs are gone so are they.
func TestWhatVMsHaveMadeIsShared(t *testing.T) {
	c := newForeignCaller(t, Config{}, 0)
	one := c.make("weir.regexp", "a+")
	other := &foreignCaller{t, newVM(c.v.policy)}
	if err := other.v.start(); err != nil {
		t.Fatal(err)
	}
	two := other.make("weir.regexp", "a+")
	_, a, _ := objectOf[*expression](c.v, one)
	_, b, _ := objectOf[*expression](other.v, two)
	if a != b || a.refs != 2 {
		t.Errorf("%p and %p with %d", a, b, a.refs)
	}
	other.v.shut()
	if a.refs != 1 || len(c.v.policy.objects.byKey) != 1 {
		t.Errorf("after the end of one: %d", a.refs)
	}
}

// FuzzForeign: no bytes that a guest sends make the host panic, or let it work for
// nothing.
func FuzzForeign(f *testing.F) {
	c := newForeignCaller(f, Config{}, 0)
	c.make("weir.regexp", `(a|b)*c`)
	c.make("weir.jwt", tokenRules(""))
	c.make("weir.keys", `{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}`)
	c.make("weir.json_paths", string(list("a.b", "c[*]")))
	c.make("weir.json_edits", string(list(0, "a.b", "1")))
	var names []string
	for _, table := range [][]foreign{signatureCalls, expressionCalls, documentCalls} {
		for _, call := range table {
			names = append(names, call.name)
		}
	}
	for i := range names {
		f.Add(uint8(i), list(1, "text", []byte("rest")))
		f.Add(uint8(i), list(4, uint32(given), []byte(`{"a":{"b":1}}`)))
		f.Add(uint8(i), list(2, []byte(token(`{"exp":1}`))))
	}
	f.Fuzz(func(t *testing.T, which uint8, args []byte) {
		_, _, _ = c.call(names[int(which)%len(names)], args)
		if len(c.v.handles) > maxObjects {
			t.Fatal("too many handles")
		}
		for i := 5; i < len(c.v.handles); i++ { // what was made beyond the five
			if c.v.handles[i] != nil {
				c.v.policy.objects.release(c.v.handles[i])
				c.v.handles[i] = nil
			}
		}
	})
}

// BenchmarkWeights holds what calls take against what they are charged: a unit of
// fuel is about a tenth of a nanosecond.
func BenchmarkWeights(b *testing.B) {
	now := time.Unix(1_800_000_000, 0)
	c := newForeignCaller(b, Config{Clock: ticking(&now)}, 1<<40)
	kilobyte := []byte(strings.Repeat("0123456789abcdef", 64))
	hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), 5)
	if err != nil {
		b.Fatal(err)
	}
	doc := []byte(`{"a":{"b":[1,2,{"c":"` + strings.Repeat("x", 900) + `"}]}}`)
	for _, call := range []struct {
		name string
		args []byte
	}{
		{"weir.digest", list(256, kilobyte)},
		{"weir.digest", list(512, kilobyte)},
		{"weir.hmac", list(256, "key", kilobyte)},
		{"weir.equal", list(string(kilobyte[:32]), kilobyte[:32])},
		{"weir.jwt_check", list(c.make("weir.jwt", tokenRules("")), []byte(token(`{"sub":"alice","exp":1800000060}`)))},
		{"weir.jwt_check", list(c.make("weir.jwt", tokenRules(`,"issuers":["x"]`)), []byte(token(`{"sub":"alice","exp":1800000060}`)))},
		{"weir.password_check", list(c.make("weir.password", string(hash)), []byte("wrong"))},
		{"weir.regexp_find", list(c.make("weir.regexp", `^/books/(\d+)$`), []byte("/books/12345"))},
		{"weir.regexp_find", list(c.make("weir.regexp", `(x+x+)+y`), []byte(strings.Repeat("x", 1000)))},
		{"weir.regexp_find", list(c.make("weir.regexp", `(?i)[a-z]+@[a-z]+\.com`), kilobyte)},
		{"weir.regexp_replace", list(c.make("weir.regexp", `^/v1/`), "/v2/", []byte("/v1/books/12345"))},
		{"weir.json_get", list(c.make("weir.json_paths", string(list("a.b[2].c"))), uint32(given), doc)},
		{"weir.regexp", []byte(`^/books/(\d+)/pages/[a-z]{1,20}$`)},
	} {
		b.Run(call.name, func(b *testing.B) {
			_, _, _ = c.call(call.name, call.args)
			_, _, fuel := c.call(call.name, call.args)
			for b.Loop() {
				_, _, _ = c.call(call.name, call.args)
				if call.name == "weir.regexp" {
					for i := 9; i < len(c.v.handles); i++ {
						c.v.policy.objects.release(c.v.handles[i])
					}
					c.v.handles = c.v.handles[:min(9, len(c.v.handles))]
				}
			}
			b.ReportMetric(float64(fuel)/10, "paid-ns")
		})
	}
}
