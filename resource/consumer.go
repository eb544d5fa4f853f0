package resource

import (
	"cmp"
	"encoding/hex"
	"strings"
	"time"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// The bounds of a window in a Plan.
const (
	minWindow = time.Second
	maxWindow = 31 * 24 * time.Hour
)

// maxRequests bounds a limit: sums of them fit into 64 bits whatever is counted.
const maxRequests = 1 << 50

// IsConsumer tells whether a kind is one of those that say who may call.
func IsConsumer(kind string) bool {
	switch kind {
	case KindApp, KindCredential, KindPlan, KindSubscription:
		return true
	}
	return false
}

// DefaultKeyHeader is where a request bears its key, unless the Api says otherwise.
const DefaultKeyHeader = "x-api-key"

func (c *check) authentication(at Path, a *weirv1.ApiAuthentication) {
	if a == nil {
		return
	}
	if a.GetApiKey() == nil {
		c.add(at, "needs a way: apiKey: {}")
	}
	c.optional(at.Field("apiKey").Field("header"), a.GetApiKey().GetHeader(), checkHeaderName)
	c.optional(at.Field("consumerHeader"), a.GetConsumerHeader(), checkHeaderName)
	if told := a.GetConsumerHeader(); told != "" && strings.EqualFold(told, cmp.Or(a.GetApiKey().GetHeader(), DefaultKeyHeader)) {
		c.add(at.Field("consumerHeader"), "is where the key is, which the service is not shown")
	}
}

func (c *check) app(spec *weirv1.AppSpec) {
	c.optional("spec.organization", spec.GetOrganization(), checkLabel)
}

func (c *check) credential(spec *weirv1.CredentialSpec) {
	const at = Path("spec")
	c.syntax(at.Field("app"), checkLabel(spec.GetApp()))
	if sum, err := hex.DecodeString(spec.GetSha256()); err != nil || len(sum) != 32 {
		c.add(at.Field("sha256"), "must be the SHA-256 of the key, 64 hexadecimal digits")
	}
	if len(spec.GetPrefix()) > 16 {
		c.add(at.Field("prefix"), "has %d bytes; the most is 16: it shows how the key begins", len(spec.GetPrefix()))
	}
	if t := spec.GetExpireTime(); t != nil && !t.IsValid() {
		c.add(at.Field("expireTime"), "is no time between the years 1 and 9999")
	}
}

func (c *check) plan(spec *weirv1.PlanSpec) {
	const apis, limits = Path("spec.apis"), Path("spec.limits")
	c.count(apis, len(spec.GetApis()), 1, maxEntries, "Api")
	seen := map[string]bool{}
	for i, name := range spec.GetApis() {
		c.syntax(apis.Index(i), checkLabel(name))
		c.unique(seen, apis.Index(i), name, "the Api")
	}
	c.count(limits, len(spec.GetLimits()), 0, maxEntries, "limit")
	seen = map[string]bool{}
	for i, l := range spec.GetLimits() {
		at := limits.Index(i)
		c.syntax(at.Field("name"), checkLabel(l.GetName()))
		c.unique(seen, at.Field("name"), l.GetName(), "the limit")
		if n := l.GetRequests(); n == 0 || n > maxRequests {
			c.add(at.Field("requests"), "must be 1 to %d, not %d", uint64(maxRequests), n)
		}
		if w := l.GetWindow(); w.CheckValid() != nil || w.AsDuration() < minWindow || w.AsDuration() > maxWindow || w.GetNanos() != 0 {
			c.add(at.Field("window"), "must be 1 s to 31 days in whole seconds, such as \"60s\"")
		}
	}
}

func (c *check) subscription(spec *weirv1.SubscriptionSpec) {
	c.syntax("spec.app", checkLabel(spec.GetApp()))
	c.syntax("spec.plan", checkLabel(spec.GetPlan()))
}
