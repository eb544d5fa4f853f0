package manifest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// What the guide tells people to write is valid.
func TestTheGuideOfListeners(t *testing.T) {
	page, err := os.ReadFile("../../docs/guides/listeners.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```yaml\n")[1:]
	for _, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		items, err := manifest.Parse("listeners.md", []byte(text))
		if err != nil || len(items) == 0 {
			t.Errorf("%d resources, %v in\n%s", len(items), err, text)
			continue
		}
		for _, item := range items {
			resource.Normalize(item.Resource)
			for _, v := range resource.Validate(item.Resource) {
				t.Errorf("%s in\n%s", v, text)
			}
		}
	}
	if len(blocks) < 6 {
		t.Errorf("only %d examples are there", len(blocks))
	}
}
