// Package arch holds the architecture: which package may import which. The
// table below is docs/design.md's, and this test is what keeps it true.
package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/weirmesh/weir/"

// allowed lists, for each package, the packages of this module that it may
// import. A package that is not listed fails the test: say first where it
// stands. Tests may import more.
var allowed = map[string][]string{
	"proto/weir/v1":               {},
	"proto/weir/v1/weirv1connect": {"proto/weir/v1"},

	"internal/signature":    {},
	"internal/oci":          {},
	"resource":              {"proto/weir/v1", "internal/signature"},
	"resource/manifest":     {"proto/weir/v1", "resource", "resource/manifest/gatewayapi"},
	"quota/ledger":          {"proto/weir/v1"},
	"quota":                 {"proto/weir/v1", "proxy/exchange"},
	"policy/quota":          {"policy", "proxy/exchange", "quota"},
	"store":                 {"proto/weir/v1", "resource", "internal/durable", "quota/ledger"},
	"cluster":               {"proto/weir/v1", "internal/durable", "cluster/rpc", "cluster/roster", "cluster/wal"},
	"cluster/wal":           {"internal/durable"},
	"cluster/rpc":           {},
	"cluster/roster":        {"internal/durable"},
	"identity/record":       {},
	"identity/identitytest": {"identity/record"},
	"acme":                  {"proto/weir/v1", "resource", "identity", "identity/record"},
	"identity":              {"proto/weir/v1", "internal/durable", "internal/pause", "identity/record"},
	"telemetry":             {"proto/weir/v1", "proxy/exchange"},

	"resource/manifest/gatewayapi": {},
	"resource/openapi":             {"proto/weir/v1", "resource"},

	"proxy/exchange": {},
	"proxy/wire":     {},
	"proxy/http1":    {"proxy/exchange", "proxy/wire"},
	"proxy/section":  {"proxy/exchange", "proxy/http1"},
	"proxy/http2":    {"proxy/exchange", "proxy/http1", "proxy/section", "proxy/upstream", "proxy/wire"},
	"proxy/http3":    {"proxy/exchange", "proxy/http1", "proxy/section", "proxy/upstream"},
	"proxy/handler":  {"proxy/exchange", "proxy/http2", "proxy/wire"},
	"proxy/router":   {"proto/weir/v1", "resource", "proxy/exchange"},
	"proxy/balancer": {},
	"proxy/health":   {},
	"proxy/resolve":  {},
	"proxy/upstream": {"proxy/exchange", "proxy/http1", "proxy/wire", "proxy/proxyproto"},
	"proxy/service":  {"proxy/balancer", "proxy/health", "proxy/resolve", "proxy/upstream"},
	"proxy/probe":    {"proxy/exchange", "proxy/health", "proxy/upstream"},
	"proxy/cors":     {"proto/weir/v1", "proxy/exchange"},
	"proxy/compress": {"proto/weir/v1", "proxy/exchange"},
	"proxy/fault":    {"proto/weir/v1", "proxy/exchange"},
	"proxy/mirror":   {"proxy/exchange", "proxy/service", "proxy/upstream"},
	"proxy/listener": {"proxy/exchange", "proxy/hangup", "proxy/http1", "proxy/http2", "proxy/http3", "proxy/wire", "proxy/proxyproto"},

	"proxy/peer":       {"proxy/http2", "proxy/http3", "proxy/upstream"},
	"proxy/hello":      {},
	"proxy/hangup":     {},
	"proxy/proxyproto": {},
	"proxy/relay":      {},
	"proxy/overload":   {},
	"mesh":             {"proto/weir/v1", "resource"},
	"proxy": {"proto/weir/v1", "resource", "mesh", "policy", "policy/canary", "internal/signature", "telemetry", "proxy/exchange", "proxy/http1", "proxy/http2", "proxy/http3", "proxy/wire",
		"proxy/router", "proxy/balancer", "proxy/health", "proxy/resolve", "proxy/service", "proxy/upstream", "proxy/listener",
		"proxy/peer", "proxy/probe", "proxy/cors", "proxy/compress", "proxy/fault", "proxy/mirror", "proxy/hello", "proxy/proxyproto", "proxy/relay", "proxy/overload"},

	"meter":                {"proto/weir/v1", "internal/durable", "proxy/exchange"},
	"consumer":             {"proto/weir/v1", "resource", "proxy/exchange", "consumer/apikey"},
	"consumer/apikey":      {},
	"contract":             {"contract/schema"},
	"contract/schema":      {},
	"policy":               {"proto/weir/v1", "proxy/exchange"},
	"policy/access":        {"proto/weir/v1", "resource", "policy", "proxy/exchange"},
	"policy/api":           {"proto/weir/v1", "resource", "policy", "proxy/exchange", "contract", "consumer"},
	"policy/canary":        {"proto/weir/v1", "policy", "proxy/exchange"},
	"policy/policytest":    {"proto/weir/v1", "policy", "proxy/exchange"},
	"policy/wasm":          {"proto/weir/v1", "policy", "proxy/exchange", "policy/wasm/fuel", "policy/wasm/abi", "policy/wasm/sections", "policy/jose", "policy/jsonpath"},
	"policy/waf":           {"proto/weir/v1", "policy", "proxy/exchange", "policy/waf/dfa"},
	"policy/waf/dfa":       {},
	"policy/jose":          {},
	"policy/jsonpath":      {},
	"policy/wasm/sections": {},
	"policy/plugintest": {"proto/weir/v1", "resource", "resource/manifest", "policy", "policy/wasm", "policy/wasm/fuel", "policy/wasm/sections",
		"proxy/exchange"},
	"policy/scaffold":  {},
	"policy/wasm/fuel": {},
	"policy/wasm/abi":  {},

	"nodeport":        {"identity", "internal/pause"},
	"fleet":           {"proto/weir/v1", "proto/weir/v1/weirv1connect", "identity", "nodeport"},
	"nodeapi":         {"proto/weir/v1", "proto/weir/v1/weirv1connect", "resource", "identity", "nodeport", "internal/durable", "internal/pause"},
	"admin":           {"proto/weir/v1", "proto/weir/v1/weirv1connect", "internal/signature", "resource", "resource/manifest", "identity", "consumer/apikey", "contract", "proxy/handler"},
	"admin/admintest": {"proto/weir/v1", "resource", "admin", "store"},
	"node": {"proto/weir/v1", "proto/weir/v1/weirv1connect", "resource", "resource/manifest", "store", "cluster", "identity", "identity/record",
		"internal/handover", "telemetry", "nodeport", "nodeapi", "fleet", "admin", "acme", "meter", "internal/durable", "internal/pause",
		"consumer", "mesh", "proxy", "proxy/overload", "proxy/probe", "proxy/upstream", "policy", "policy/access", "policy/api", "policy/canary", "policy/quota", "policy/waf", "policy/wasm", "quota", "quota/ledger", "internal/signature", "examples/bookshop", "examples/plugins"},
	"cmd/weir": {"proto/weir/v1", "proto/weir/v1/weirv1connect", "internal/signature", "internal/oci", "resource", "resource/manifest", "resource/openapi", "node", "internal/handover",
		"consumer/apikey", "policy/plugintest", "policy/scaffold", "policy/wasm", "examples/plugins"},

	"internal/arch":        {},
	"internal/durable":     {},
	"internal/freeport":    {},
	"internal/handover":    {},
	"internal/memnet":      {},
	"internal/pause":       {},
	"internal/testcluster": {"proto/weir/v1", "cluster", "store", "resource", "internal/memnet"},
	"examples/bookshop":    {},
	"examples/plugins":     {},

	"examples/bookshop/cmd/bookshop": {"examples/bookshop"},
	"bench":                          {"bench/measure"},
	"bench/measure":                  {},
	"bench/raft":                     {"proto/weir/v1", "proto/weir/v1/weirv1connect", "resource", "cluster", "store", "bench/measure"},
	"bench/sandbox":                  {"proto/weir/v1", "proto/weir/v1/weirv1connect", "resource", "resource/manifest", "bench/measure"},

	// Real processes under real faults. Its tests alone know what Weir is.
	"test/cluster": {},

	// An edge inside a test.
	"test/edge": {"proto/weir/v1", "proxy", "resource", "telemetry"},
	// Debian's servers behind it, others' WebSocket through it, plugins that others'
	// compilers built, a model of it, and what is done to it for long. Tests alone.
	"test/foreign":   {},
	"test/garden":    {},
	"test/websocket": {},
	"test/model":     {},
	"test/soak":      {},
	// Messages that could be read in two ways, and the grammar that judges what
	// becomes of them. It knows nothing of Weir; its tests and others' do.
	"test/smuggling": {},
	// The tour of README.md, taken by a test.
	"test/tour": {},

	// Machinery for tests that run real processes. It knows nothing of Weir.
	"test/hosts":    {},
	"test/relay":    {},
	"test/powercut": {},
	"test/linear":   {},
}

// onlyIn names third-party libraries that one package alone may import, so
// that replacing one is one package's work.
var onlyIn = map[string][]string{
	"github.com/tetratelabs/wazero":              {"policy/wasm", "policy/wasm/fuel"},
	"github.com/go-jose/go-jose/v4":              {"policy/jose"},
	"github.com/hashicorp/raft":                  {"cluster", "cluster/wal", "internal/testcluster"},
	"go.etcd.io/bbolt":                           {"store"},
	"github.com/hanwen/go-fuse/v2":               {"test/powercut"},
	"github.com/anishathalye/porcupine":          {"test/linear"},
	"github.com/klauspost/compress":              {"proxy/compress", "nodeapi", "internal/oci"},
	"github.com/andybalholm/brotli":              {"proxy/compress"},
	"github.com/corazawaf/coraza/v3":             {"policy/waf"},
	"github.com/corazawaf/coraza-coreruleset/v4": {"policy/waf"},
}

func TestImports(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// Modules of their own keep their own rules.
			if name := d.Name(); name != ".." && strings.HasPrefix(name, ".") || name == "testdata" || isModule(root, file) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		rel, _ := filepath.Rel(root, file)
		checkFile(t, path.Dir(filepath.ToSlash(rel)), file, seen)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func isModule(root, dir string) bool {
	if filepath.Clean(dir) == filepath.Clean(root) {
		return false
	}
	found, _ := filepath.Glob(filepath.Join(dir, "go.mod"))
	return len(found) > 0
}

func checkFile(t *testing.T, pkg, file string, seen map[string]bool) {
	t.Helper()
	rule, listed := allowed[pkg]
	if !listed {
		// A command below a listed tree (bench/load, examples/x/cmd) keeps its parent's rule.
		rule, listed = allowed[path.Dir(pkg)]
	}
	if !listed {
		if !seen[pkg] {
			t.Errorf("package %s has no entry in internal/arch: say where it stands", pkg)
		}
		seen[pkg] = true
		return
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range parsed.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if own, ok := strings.CutPrefix(imported, module); ok && own != pkg && !slices.Contains(rule, own) {
			t.Errorf("%s: package %s must not import %s", file, pkg, own)
		}
		for library, homes := range onlyIn {
			if (imported == library || strings.HasPrefix(imported, library+"/")) && !slices.Contains(homes, pkg) {
				t.Errorf("%s: package %s must not import %s", file, pkg, imported)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for pkg := range allowed {
		files, _ := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pkg), "*.go"))
		if len(files) == 0 || strings.HasPrefix(pkg, "proto/") {
			continue
		}
		documented := false
		for _, file := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || parsed.Doc != nil
		}
		if !documented {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}
