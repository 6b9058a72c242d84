#!/bin/sh
# Puts seeds into fuzz/corpus: pictures of every kind that are drawn here, and what clients send.
set -eu
cd "$(dirname "$0")/.."
mkdir -p fuzz/corpus/picture fuzz/corpus/query fuzz/corpus/accept fuzz/corpus/if_none_match
AVATAR_PROXY_REELS="$PWD/fuzz/corpus/picture" cargo bench --profile dev --bench motion >/dev/null
cp benches/pictures/*.png fuzz/corpus/picture/
seed() {
    n=0
    while IFS= read -r line; do
        n=$((n + 1))
        printf '%b' "$line" >"fuzz/corpus/$1/seed-$n"
    done
}
seed query <<'EOF'
size=32&dpr=1.5
w=64&h=48&fit=contain&bg=00ff80
s=032&f=webp&q=83&animated=1
%73ize=32&_=1712345678901&lastPictureUpdate=-5
method=scale&output=jpg&size=4097
EOF
seed accept <<'EOF'
Mozilla/5.0\nimage/avif,image/webp,image/apng,image/*,*/*;q=0.8
Mattermost Mobile/2.43.0\nimage/*,*/*;q=0.8
x\nimage/webp;q=0, image/png;q=0.5\nimage/jpeg
x\nimage/avif
x\nimage/avif;q=0.9, image/png, image/webp;q=0
EOF
seed if_none_match <<'EOF'
"0123456789abcdef"
W/"x", "0123456789abcdef"\n*
1712345678901
EOF
