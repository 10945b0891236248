"""The everyday words and phrases that the sentence maker fills its templates with."""

from __future__ import annotations

EVERYDAY_NOUNS = """
air aunt baby bag ball bank bath beach bed bell bird boat body book bottle bowl box boy bread
breakfast bridge brother bus business cake camera car card cat chair child city class clock
clothes cloud coat coffee computer cook corner country cup daughter day desk dinner doctor dog
door dream dress driver ear earth engine evening eye face family farm farmer father field film
fire fish floor flower food forest friend fruit game garden girl glass gold grandmother grass
group hair hall hand hat head heart hill holiday home horse hospital hotel hour house husband ice
idea island job journey juice key king kitchen lake lamp language leaf leg lesson letter library
light list lunch machine man map market meal meat meeting message milk minute mirror money month
moon morning mother mountain mouse mouth movie music name neck nephew newspaper night noise nose
number nurse ocean office onion orange page paint paper parent park party pen people phone photo
piano picture pilot place plane plant plate pocket poem police problem puppy queen question radio
rain reason ring river road room rose sailor salt school sea season seat shadow sheep ship shirt
shoe shop shoulder sister skin sky snow soap song soup spoon spring stair star station stone store
storm story street student sugar summer sun table teacher team tent thing thunder ticket tiger
time town toy train tree trip truck uncle valley village voice wall watch water weather week
whistle wife wind window winter woman wood word work world year zebra
""".split()

EVERYDAY_ADJECTIVES = """
angry bad beautiful big bitter black blue brave bright broken brown calm careful cheap clean
clever cold cool dark deep different difficult dirty dry early easy empty expensive famous fast
fat favorite few fine foreign free fresh friendly full funny gentle good great green grey happy
hard heavy high honest hot huge hungry important interesting kind large last late lazy light
little lonely long loud lovely low lucky narrow neat new next nice noisy old open orange perfect
pink plain pleasant polite poor pretty proud purple quick quiet ready red rich right rough round
sad safe serious shallow sharp short shy sick simple slow small smart smooth soft sour special
square strange strong sunny sweet tall terrible thick thin thirsty tidy tiny tired true ugly
useful warm weak wet white whole wide wild wise wonderful wrong yellow young
""".split()

# infinitive, past tense: verbs that take an object, then verbs that take none
TRANSITIVE_VERBS = """
answer:answered ask:asked bake:baked borrow:borrowed break:broke bring:brought build:built
burn:burned buy:bought call:called carry:carried catch:caught change:changed check:checked
choose:chose clean:cleaned close:closed collect:collected cook:cooked copy:copied count:counted
cover:covered cross:crossed cut:cut describe:described design:designed draw:drew drink:drank
drive:drove drop:dropped eat:ate enjoy:enjoyed explain:explained feed:fed fight:fought find:found
finish:finished fix:fixed follow:followed forget:forgot give:gave grow:grew guess:guessed
hate:hated have:had hear:heard help:helped hide:hid hit:hit hold:held hope:hoped imagine:imagined
invite:invited join:joined judge:judged keep:kept kick:kicked kiss:kissed know:knew learn:learned
leave:left lend:lent lift:lifted like:liked lose:lost love:loved make:made measure:measured
meet:met miss:missed move:moved name:named need:needed notice:noticed offer:offered open:opened
order:ordered own:owned paint:painted pass:passed pay:paid phone:phoned plan:planned plant:planted
play:played prefer:preferred prepare:prepared promise:promised protect:protected pull:pulled
push:pushed put:put reach:reached read:read remember:remembered repair:repaired ride:rode
save:saved see:saw sell:sold send:sent serve:served shake:shook share:shared show:showed shut:shut
sing:sang smell:smelled steal:stole stop:stopped study:studied take:took taste:tasted teach:taught
tell:told thank:thanked throw:threw touch:touched understand:understood use:used visit:visited
want:wanted warn:warned wash:washed watch:watched wear:wore win:won write:wrote
""".split()

INTRANSITIVE_VERBS = """
agree:agreed appear:appeared arrive:arrived begin:began breathe:breathed come:came cough:coughed
cry:cried dance:danced disappear:disappeared fall:fell fly:flew go:went happen:happened
hurry:hurried jump:jumped laugh:laughed leave:left lie:lied listen:listened live:lived look:looked
rest:rested return:returned rise:rose run:ran shine:shone shout:shouted sing:sang sit:sat
sleep:slept smile:smiled speak:spoke stand:stood stay:stayed swim:swam talk:talked travel:traveled
wait:waited wake:woke walk:walked whisper:whispered work:worked worry:worried yawn:yawned
""".split()

PEOPLE = """
Adam Alice Anna Arthur Barbara Ben Beth Brian Carol Charles Clara Daniel David Diana Edward Elena
Emma Eric Faith Frank George Grace Hannah Harry Helen Henry Hugo Irene Jack Jacob James Jane Joan
John Joy Judith Julia Karen Kate Kevin Laura Leo Linda Lucy Maria Mark Martha Martin Mary Michael
Nancy Nora Oliver Oscar Paul Peter Philip Rachel Robert Rose Roy Ruth Sam Sarah Shawn Simon Sophie
Stephen Susan Theo Thomas Tony Vera Victor Vincent Walter William Zoe
""".split()

PLACES = """
Africa America Asia Australia Berlin Boston Canada Chicago China Denver Egypt England Europe
Florence France Germany Greece India Ireland Italy Japan Kenya London Madrid Mexico Moscow Paris
Peru Poland Rome Scotland Spain Sweden Texas Tokyo Vienna Washington
""".split()

ADVERBS = """
again alone already always badly bravely carefully certainly clearly early easily everywhere
finally gently happily hardly here immediately indeed inside later loudly nearly never now often
once outside perhaps politely quickly quietly rarely sadly seldom slowly somewhere sometimes soon
still suddenly there today together tomorrow twice usually yesterday
""".split()

PREPOSITIONS = """
about above across after against along among around at before behind below beneath beside between
beyond by during for from in inside into near of on outside over past through to toward under
until with without
""".split()

TIMES = (
    "in the morning|in the afternoon|in the evening|at night|after dinner|before sunrise|"
    "last night|this week|on Monday|on Tuesday|on Wednesday|on Thursday|on Friday|on Saturday|"
    "on Sunday|in January|in February|in March|in April|in May|in June|in July|in August|"
    "in September|in October|in November|in December|next year|every day|at noon|at midnight|"
    "a year ago|long ago|right now|once a month|all day long|as soon as possible|at the moment"
).split("|")

PHRASES = (
    "Hello.|Hello there.|Good morning.|Good evening, everyone.|Good night.|How are you?|"
    "How are you doing today?|I'm fine, thank you.|Thank you very much.|You're welcome.|Yes.|"
    "No.|Yes, please.|No, thank you.|I don't know.|I don't think so.|That's right.|"
    "That's not what I meant.|What's your name?|My name is {person}.|"
    "Nice to meet you, {person}.|Where are you from?|I'm from {place}.|What time is it?|"
    "It's {number} o'clock.|See you later.|See you {time}.|Goodbye, {person}.|Excuse me.|"
    "I'm sorry.|It doesn't matter.|Don't worry about it.|Can you help me?|"
    "Could you say that again, please?|Of course.|Let's go.|Wait a minute.|Be careful!|"
    "Look at that!|Well done!|Happy birthday, {person}!|It's raining again.|It's getting late.|"
    "I can't hear you.|We've been waiting for {number} hours.|They're on their way.|"
    "She's at the {noun}.|He isn't here right now.|Who's there?|I'd like a cup of coffee.|"
    "How much does it cost?|That will be {number} dollars.|Would you like some more {noun}?|"
    "Turn left at the {noun}.|There's no hurry.|You shouldn't do that.|"
    "I haven't seen {person} since {month}.|Are you ready?|Here you are.|What do you mean?|"
    "I couldn't agree more.|Let me think about it.|What a {adjective} {noun}!|It was nothing.|"
    "This is the end of the {noun}.|Welcome to the {noun}.|Please sit down.|"
    "Open your book at page {number}.|Once upon a time there was a {noun}.|It wasn't me.|"
    "We're almost there.|I've got an idea.|Do you speak English?|The train leaves at {number}."
).split("|")

MONTHS = """
January February March April May June July August September October November December
""".split()

DETERMINERS = (
    "the the the the the a a this that my your his her our their every another some no each".split()
)
PRONOUNS = "I you he she we they it".split()
OBJECT_PRONOUNS = "me you him her us them it".split()
MODALS = (
    "can could should would must will might cannot won't can't shouldn't wouldn't didn't".split()
)
