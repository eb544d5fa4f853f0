package plugins_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/weirmesh/weir/examples/plugins"
)

func TestModules(t *testing.T) {
	if _, err := plugins.Module("nothing"); !errors.Is(err, plugins.ErrNotBuilt) || !strings.Contains(err.Error(), "make build") {
		t.Errorf("a plugin that is not there gives %v", err)
	}
	if _, err := plugins.Module("../plugins"); err == nil {
		t.Error("a module is found outside of its directory")
	}
	for _, name := range plugins.Names() {
		module, err := plugins.Module(name)
		if err != nil || !strings.HasPrefix(string(module), "\x00asm") {
			t.Errorf("%s is no module: %v", name, err)
		}
	}
}
