from icl_vision.wording import counted


def test_one_is_not_many():
    said = [counted(n, "picture") for n in (0, 1, 2, 1200)]
    assert said == ["0 pictures", "1 picture", "2 pictures", "1,200 pictures"]
    assert [counted(n, "class", "classes") for n in (1, 3)] == ["1 class", "3 classes"]
