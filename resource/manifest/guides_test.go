package manifest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// What the guides tell people to write is valid.
func TestGuides(t *testing.T) {
	for guide, least := range map[string]int{"upstreams.md": 8, "routes.md": 6, "policies.md": 9, "apis.md": 4, "limits.md": 1} {
		page, err := os.ReadFile("../../docs/guides/" + guide)
		if err != nil {
			t.Fatal(err)
		}
		blocks := strings.Split(string(page), "```yaml\n")[1:]
		for _, block := range blocks {
			text, _, _ := strings.Cut(block, "```")
			items, err := manifest.Parse(guide, []byte(text))
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
		if len(blocks) < least {
			t.Errorf("%s: only %d examples are there", guide, len(blocks))
		}
	}
}
