package introspection

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/weirmesh/weir/examples/plugins/standard/bearer"
)

type config struct {
	bearer.Config
	Service string       `json:"service" about:"the authorization server, as a service that the policy is granted"`
	URL     string       `json:"url" about:"where it tells about tokens"`
	Client  clientConfig `json:"client" about:"who asks"`
	Timeout int64        `json:"timeout" about:"how many seconds asking may take"`
	Cache   cacheConfig  `json:"cache" about:"how long answers are kept"`
	Stale   int64        `json:"stale" about:"for how many seconds more a token is good that was good, while nobody can be asked"`
}

type clientConfig struct {
	ID     string `json:"id" about:"the client's name"`
	Secret string `json:"secret" about:"the client's secret"`
	Method string `json:"method" oneof:"basic,post,none" about:"how they are sent (RFC 6749, section 2.3.1)"`
}

type cacheConfig struct {
	Seconds  int64  `json:"seconds" about:"for a token that is good, and no longer than its exp"`
	Negative int64  `json:"negative" about:"for one that is not"`
	Entries  uint32 `json:"entries" about:"how many are kept"`
}

func (c *config) Default() {
	c.Config, c.Timeout = bearer.Default(), 5
	c.Client.Method = "basic"
	c.Cache = cacheConfig{Seconds: 60, Negative: 10, Entries: 1024}
}

func (c *config) Validate() error {
	if err := c.Check(); err != nil {
		return err
	}
	u, err := url.Parse(c.URL)
	const day, most = 24 * 3600, 4096
	switch {
	case c.Service == "":
		return errors.New("service: missing: name the authorization server's service, which the policy is granted (spec.services)")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "":
		return errors.New("url: want https://HOST/PATH, or http: where the server tells about tokens")
	case c.Client.Method != "basic" && c.Client.Method != "post" && c.Client.Method != "none":
		return fmt.Errorf("client.method: %q is not one of basic, post, none", c.Client.Method)
	case (c.Client.ID == "" || c.Client.Secret == "") && c.Client.Method != "none":
		return errors.New("client: give id and secret; with method none the server lets anybody ask")
	case c.Timeout < 1 || c.Timeout > 60:
		return errors.New("timeout: want 1 to 60 seconds")
	case c.Cache.Seconds < 1 || c.Cache.Seconds > day || c.Cache.Negative < 1 || c.Cache.Negative > day:
		return errors.New("cache.seconds, cache.negative: want 1 to 86400 seconds")
	case c.Stale < 0 || c.Stale > day:
		return errors.New("stale: want 0 to 86400 seconds")
	case c.Cache.Entries < 16 || c.Cache.Entries > most:
		return errors.New("cache.entries: want 16 to 4096")
	}
	return nil
}
