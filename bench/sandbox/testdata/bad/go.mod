module github.com/weirmesh/weir/bench/sandbox/testdata/bad

go 1.26.0

require github.com/weirmesh/weir/plugins-sdk v0.0.0

replace github.com/weirmesh/weir/plugins-sdk => ../../../../plugins-sdk
