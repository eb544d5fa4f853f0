package sdk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestThePluginOfTheReadmeIsTheOneThatIsBuilt(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("testdata/stamp/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(source)+"```") {
		t.Error("README.md does not show testdata/stamp/main.go")
	}
}

func TestStockGoBuildsAPlugin(t *testing.T) {
	module := filepath.Join(t.TempDir(), "stamp.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", module, "./testdata/stamp")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bytes, err := os.ReadFile(module)
	if err != nil {
		t.Fatal(err)
	}
	for _, export := range []string{"_initialize", "proxy_abi_version_0_2_1", "proxy_on_memory_allocate", "proxy_on_request_headers"} {
		if !strings.Contains(string(bytes), export) {
			t.Errorf("the module does not export %s", export)
		}
	}
}
